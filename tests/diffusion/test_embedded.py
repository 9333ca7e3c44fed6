"""The embedded model is loaded without a word; what its libraries say of other models is still heard."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from loopwright.diffusion import embedded_pipeline
pipe = embedded_pipeline()
embedded_pipeline(workflow="morph")
print("loaded", file=sys.stderr, flush=True)
from diffusers.guiders import ClassifierFreeGuidance
ClassifierFreeGuidance()
from transformers.utils.logging import tqdm
for _ in tqdm(range(1), desc="own"): pass
"""


def test_loading_the_embedded_model_prints_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, after = done.stderr.split("loaded\n")
    assert (before, done.stdout) == ("", "")
    assert "Guiders are currently an experimental feature" in after
    assert "own: 100%" in after
