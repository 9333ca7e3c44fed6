"""What the models do without any server, which is what a server is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

MAX_BATCH = 8
STEPS = (10, 30)
ROWS_PER_STEP = 2  # with guidance, a step calls the transformer for the prompt and without it


@dataclass
class Machine:
    """What this machine does without any server.

    Attributes:
        rates: rows per second of the bare transformer, for a batch of one call and of the largest.
        models: seconds that text encoder and decoder take for a picture, in the largest batch.
        blocks: seconds that the blocks take for a picture beside their models, on one core.
        cores: how many there are.
    """

    rates: dict[int, float]
    models: float
    blocks: float
    cores: int

    @property
    def ideal(self) -> float:
        """Steps per second."""
        return self.rates[MAX_BATCH] / ROWS_PER_STEP

    def ceiling(self, generator: float) -> float:
        """Which share of the ideal is left if each core works all the time, and serving itself costs nothing.

        Args:
            generator: seconds that the load generator takes for a picture, on one core.
        """
        transformer = sum(STEPS) / 2 / self.ideal
        return transformer / (transformer + self.models + (self.blocks + generator) / self.cores)


class Bare:
    """The models by themselves, in this process."""

    def __init__(self) -> None:
        import torch

        from loopwright.diffusion import embedded_pipeline

        self._torch = torch
        self._pipe = embedded_pipeline(workflow="text2image")
        self._pipe.set_progress_bar_config(disable=True)

    def plain_call(self, request: dict[str, Any]) -> float:
        """Seconds of the plain call of a request."""
        began = time.perf_counter()
        generator = self._torch.Generator().manual_seed(request["seed"])
        self._pipe(prompt=request["prompt"], num_inference_steps=request["steps"], generator=generator, output="images")
        return time.perf_counter() - began

    def rates(self) -> dict[int, float]:
        """Rows per second of the transformer, for a batch of one call and of the largest."""
        torch, transformer = self._torch, self._pipe.transformer
        config, length = transformer.config, self._pipe.text_encoder.config.max_position_embeddings
        found = {}
        for calls in (1, MAX_BATCH):
            rows = calls * ROWS_PER_STEP
            arguments = {
                "hidden_states": torch.randn(rows, config.in_channels, config.sample_size, config.sample_size),
                "encoder_hidden_states": torch.randn(rows, length, config.caption_channels),
                "encoder_attention_mask": torch.ones(rows, length, dtype=torch.int64),
                "timestep": torch.full((rows,), 500.0),
                "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
                "return_dict": False,
            }
            found[calls] = rows / self._seconds(lambda given=arguments: transformer(**given))
        return found

    def other_models(self) -> float:
        """Seconds that text encoder and decoder take for a picture, in the largest batch."""
        torch, text_encoder, vae = self._torch, self._pipe.text_encoder, self._pipe.vae
        config = self._pipe.transformer.config
        rows = MAX_BATCH * ROWS_PER_STEP
        ids = torch.zeros(rows, text_encoder.config.max_position_embeddings, dtype=torch.int64)
        latents = torch.randn(MAX_BATCH, config.in_channels, config.sample_size, config.sample_size)
        mask = torch.ones_like(ids)
        text = self._seconds(lambda: text_encoder(ids, attention_mask=mask))
        return (text + self._seconds(lambda: vae.decode(latents, return_dict=False))) / MAX_BATCH

    def blocks(self) -> float:
        """Seconds that the blocks take for a picture beside their models."""
        in_models = 0.0
        pipe = self._pipe

        def timed(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal in_models
                began = time.perf_counter()
                try:
                    return function(*args, **kwargs)
                finally:
                    in_models += time.perf_counter() - began

            return call

        wrapped = [(pipe.text_encoder, "forward"), (pipe.transformer, "forward"), (pipe.vae, "decode")]
        for model, name in wrapped:
            setattr(model, name, timed(getattr(model, name)))
        try:
            times = []
            for _ in range(12):
                in_models = 0.0
                times.append(self.plain_call({"prompt": "cat", "steps": sum(STEPS) // 2, "seed": 0}) - in_models)
        finally:
            for model, name in wrapped:
                delattr(model, name)
        return median(times[2:])

    def _seconds(self, call: Callable[[], Any]) -> float:
        times = []
        with self._torch.no_grad():
            for _ in range(40):
                began = time.perf_counter()
                call()
                times.append(time.perf_counter() - began)
        return median(times[5:])
