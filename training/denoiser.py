"""Trains the denoiser and its text encoder on the latents of the frozen autoencoder, by flow matching.

With x_sigma = (1 - sigma) x0 + sigma noise the transformer learns the velocity noise - x0 (https://arxiv.org/abs/2210.02747),
sigma drawn from a logit-normal distribution (https://arxiv.org/abs/2403.03206). Matrices of the blocks learn by Muon
(https://kellerjordan.github.io/posts/muon/), everything else by AdamW.

A batch is cut into small parts that one-threaded workers take in turn. A part's activations fit into a core's cache,
and a core that other programs use holds up nobody: the other one takes more parts.
"""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from .architecture import Denoiser, build_text_encoder, build_transformer, sample
from .autoencoder import LATENT_CHANNELS, load_average, load_pictures, to_range
from .captions import TOKENS, Captions, build_tokenizer
from .running import Training
from .workfolder import WorkFolder, argument_parser, open_work, read_json

BATCH = 128
PART = 32
ORIGINALS = 0.8
DROPPED = 0.1
# Mean of the logit of sigma: above 0, since what the picture shows is settled while the noise is strong.
LOGIT_MEAN = 0.3


@dataclass(frozen=True)
class Latents:
    """Normalised latents [N, 8, 16, 16] of originals and copies: (posterior mean - shift) * scale."""

    originals: Tensor
    copies: Tensor
    shift: float
    scale: float


def load_latents(work: WorkFolder) -> Latents:
    """From the work folder; computed where they are missing."""
    if not work.latents.exists():
        autoencoder = load_average(work)
        with torch.no_grad():
            means = [
                torch.cat([autoencoder.encode(to_range(batch)).latent_dist.mean for batch in pictures.split(64)])
                for pictures in load_pictures(work.images)
            ]
        shift, scale = float(means[0].mean()), float(1 / means[0].std())
        originals, copies = ((mean - shift) * scale for mean in means)
        torch.save({"originals": originals, "copies": copies, "shift": shift, "scale": scale}, work.latents)
    return Latents(**torch.load(work.latents, weights_only=True))


def build(described: dict[str, Any]) -> tuple[Denoiser, PreTrainedTokenizerFast]:
    tokenizer = build_tokenizer(described)
    return Denoiser(build_text_encoder(tokenizer), build_transformer()), tokenizer


def build_optimizers(model: Denoiser, workers: int) -> list[torch.optim.Optimizer]:
    """AdamW, and one Muon for each worker but together over all matrices of the blocks."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        in_block = "transformer_blocks" in name or "encoder.layers" in name
        (matrices if in_block and parameter.ndim == 2 and "scale_shift_table" not in name else others).append(parameter)
    matrices.sort(key=Tensor.numel)
    return [
        torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=True),
        *(
            torch.optim.Muon(
                matrices[first::workers], lr=2e-3, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"
            )
            for first in range(workers)
        ),
    ]


def draw(latents: Latents, captions: Captions) -> tuple[Tensor, list[str]]:
    """A batch of latents and their captions, some of which are empty."""
    chosen, texts = [], []
    for _ in range(BATCH):
        if captions.random.random() < ORIGINALS:
            index = captions.random.randrange(len(latents.originals))
            chosen.append(latents.originals[index])
            text = captions.of_original(index)
        else:
            index = captions.random.randrange(len(latents.copies))
            chosen.append(latents.copies[index])
            text = captions.of_copy(index)
        texts.append("" if captions.random.random() < DROPPED else text)
    return torch.stack(chosen), texts


def add_gradients(
    model: Denoiser, bfloat16: bool, clean: Tensor, sigma: Tensor, noise: Tensor, ids: Tensor, mask: Tensor
) -> Tensor:
    """Adds one part's share of the batch's gradients; returns its share of the loss."""
    mixed = torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1))
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        velocity = model(mixed, sigma, ids, mask)
    loss = nn.functional.mse_loss(velocity.float(), noise - clean) * (len(clean) / BATCH)
    loss.backward()
    return loss.detach()


def is_faster_in_bfloat16(model: Denoiser) -> bool:
    """Whether this machine computes a part in less time with matrices in bfloat16: some processors only emulate it."""

    def seconds(bfloat16: bool) -> float:
        latents, ids = torch.zeros(PART, LATENT_CHANNELS, 16, 16), torch.zeros(PART, TOKENS, dtype=torch.long)
        start = time.perf_counter()
        add_gradients(model, bfloat16, latents, torch.zeros(PART), latents, ids, torch.ones_like(ids))
        return time.perf_counter() - start

    return min(seconds(True) for _ in range(3)) < min(seconds(False) for _ in range(3))


def named_share(
    model: Denoiser, tokenizer: PreTrainedTokenizerFast, latents: Latents, described: dict[str, Any]
) -> float:
    """Of 64 originals asked for by name, the share whose sample lies nearest to them among all originals' latents."""
    indices = random.Random(0).sample(range(len(latents.originals)), 64)
    prompts = [described["originals"][index]["names"][0] for index in indices]
    drawn = sample(model, tokenizer, prompts, seed=0)
    nearest = torch.cdist(drawn.float().flatten(1), latents.originals.flatten(1)).argmin(1)
    return float((nearest == torch.tensor(indices)).float().mean())


def train(work: WorkFolder, minutes: float) -> None:
    torch.manual_seed(2)
    workers = os.cpu_count() or 1
    torch.set_num_threads(1)
    described = read_json(work.captions)
    latents = load_latents(work)
    model, tokenizer = build(described)
    training = Training(
        work.denoiser, work.log("denoiser"), model, build_optimizers(model, workers), minutes=minutes, decay=0.999
    )
    captions = Captions(described, random.Random(training.step))
    bfloat16 = is_faster_in_bfloat16(model)
    training.note(f"matrices in {'bfloat16' if bfloat16 else 'float32'}: faster on this machine")
    with ThreadPoolExecutor(workers) as pool:
        for step in training.steps(BATCH):
            clean, texts = draw(latents, captions)
            tokens = tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
            sigma = torch.sigmoid(torch.randn(BATCH) + LOGIT_MEAN)
            batch = clean, sigma, torch.randn_like(clean), tokens["input_ids"], tokens["attention_mask"]
            parts = zip(*(tensor.split(PART) for tensor in batch), strict=True)
            model.zero_grad(set_to_none=True)
            losses = list(pool.map(lambda part: add_gradients(model, bfloat16, *part), parts))
            training.descend(torch.stack(losses).sum(), clip=1.0, pool=pool)
            if step % 500 == 499:
                share = named_share(training.average.module, tokenizer, latents, described)
                training.note(f"named right by nearest latent: {share:.0%} of 64")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=70, help="budget of the training")
    options = parser.parse_args()
    train(open_work(options.work), options.minutes)


if __name__ == "__main__":
    main()
