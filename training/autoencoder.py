"""Trains the autoencoder: 64x64 pictures to 8x16x16 latents and back.

`--decoder` trains only the decoder of a finished autoencoder further: the latents stay as they are, so a denoiser that
was trained on them stays valid.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from .running import Training
from .workfolder import WorkFolder, argument_parser, open_work

LATENT_CHANNELS = 8
BATCH = 32
# Weight of the Kullback-Leibler term, per latent number: enough to keep the latents near 0, no more.
KL_WEIGHT = 1e-4


def build_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
    )


def load_pictures(path: Path) -> tuple[Tensor, Tensor]:
    """Originals [N, 3, 64, 64] and copies [M, 3, 64, 64], uint8."""
    with np.load(path) as arrays:
        originals, copies = (torch.from_numpy(arrays[name]).permute(0, 3, 1, 2) for name in ("originals", "copies"))
    return originals.contiguous(), copies.contiguous()


def to_range(pictures: Tensor) -> Tensor:
    """uint8 to float in -1..1."""
    return pictures.float() / 127.5 - 1


def psnr(pictures: Tensor, decoded: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture, both in -1..1: 10 log10(peak^2 / mean squared error)."""
    error = (pictures - decoded.clamp(-1, 1)).square().mean((1, 2, 3))
    return 10 * torch.log10(4 / error)


@torch.no_grad()
def measure(autoencoder: AutoencoderKL, pictures: Tensor) -> float:
    """Mean PSNR in dB over uint8 pictures [N, 3, 64, 64], decoded from the mean of the posterior."""
    ratios = []
    for batch in map(to_range, pictures.split(64)):
        with torch.autocast("cpu", torch.bfloat16, enabled=False):
            decoded = autoencoder.decode(autoencoder.encode(batch).latent_dist.mean).sample
        ratios.append(psnr(batch, decoded))
    return float(torch.cat(ratios).mean())


def reconstruction_loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    difference = decoded.float() - pictures
    return difference.abs().mean() + difference.square().mean()


def draw(originals: Tensor, copies: Tensor) -> Tensor:
    """A batch in -1..1, half of it originals."""
    half = BATCH // 2
    first = originals[torch.randint(len(originals), (half,))]
    second = copies[torch.randint(len(copies), (BATCH - half,))]
    return to_range(torch.cat([first, second]))


def train(work: WorkFolder, minutes: float) -> None:
    torch.manual_seed(0)
    originals, copies = load_pictures(work.images)
    model = build_autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    training = Training(work.autoencoder, work.log("autoencoder"), model, [optimizer], minutes=minutes, decay=0.997)
    for step in training.steps(BATCH):
        pictures = draw(originals, copies)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(pictures).latent_dist
            decoded = model.decode(posterior.sample()).sample
        divergence = posterior.kl().float().mean() / (LATENT_CHANNELS * 256)
        loss = reconstruction_loss(decoded, pictures) + KL_WEIGHT * divergence
        model.zero_grad(set_to_none=True)
        loss.backward()
        training.descend(loss, clip=1.0)
        if step % 500 == 499:
            training.note(f"PSNR of 256 originals {measure(training.average.module, originals[::5][:256]):.2f} dB")
    training.note(f"PSNR of the originals {measure(training.average.module, originals):.2f} dB")


def train_decoder(work: WorkFolder, minutes: float) -> None:
    """Starts from the finished autoencoder, and keeps a checkpoint of its own beside it."""
    torch.manual_seed(1)
    originals, copies = load_pictures(work.images)
    model = load_average(work)
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    decoder = nn.ModuleList([model.post_quant_conv, model.decoder])
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    training = Training(work.decoder, work.log("decoder"), decoder, [optimizer], minutes=minutes, decay=0.997)
    for _ in training.steps(BATCH):
        pictures = draw(originals, copies)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = model.encode(pictures).latent_dist.sample()
            decoded = decoder[1](decoder[0](latents))
        loss = reconstruction_loss(decoded, pictures)
        decoder.zero_grad(set_to_none=True)
        loss.backward()
        training.descend(loss, clip=1.0)
    training.note(f"PSNR of the originals {measure(load_average(work), originals):.2f} dB")


def load_average(work: WorkFolder) -> AutoencoderKL:
    """The averaged autoencoder, with the decoder that was trained further where there is one."""
    model = build_autoencoder()
    model.load_state_dict(torch.load(work.autoencoder, weights_only=True)["average"])
    if work.decoder.exists():
        decoder = nn.ModuleList([model.post_quant_conv, model.decoder])
        decoder.load_state_dict(torch.load(work.decoder, weights_only=True)["average"])
    return model.eval()


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=27, help="budget of the training")
    parser.add_argument("--decoder", action="store_true", help="train the decoder further, the encoder frozen")
    options = parser.parse_args()
    (train_decoder if options.decoder else train)(open_work(options.work), options.minutes)


if __name__ == "__main__":
    main()
