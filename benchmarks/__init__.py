"""Loopwright against diffusers, as ratios: `python -m benchmarks` measures and writes docs/performance.md."""
