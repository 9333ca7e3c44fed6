"""A picture with models that are loaded: the pipeline against the hand-written loop over the same models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from loopwright.diffusion import TextToImageBlocks, load_pipeline

from .handwritten import GUIDANCE, STEPS, Models, paint
from .measure import Result, in_turns
from .processes import PROMPT, SEED


def picture(repetitions: int, model: Path) -> list[Result]:
    pipeline = load_pipeline(TextToImageBlocks(), model)
    pipeline.set_progress_bar_config(disable=True)
    models = Models(*(getattr(pipeline, name) for name in Models._fields))

    def ours() -> object:
        return pipeline(
            prompt=PROMPT,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(SEED),
            output="images",
        )[0]

    def theirs() -> object:
        return paint(models, PROMPT, SEED)

    same = np.array_equal(np.asarray(ours()), np.asarray(theirs()))
    times = in_turns(ours, theirs, calls=1, repetitions=repetitions)
    return [
        Result(
            f"a picture of {STEPS} steps, with loaded models",
            *times,
            bar=1.05,
            remark="against a hand-written loop; " + ("the same picture" if same else "ANOTHER PICTURE"),
        )
    ]
