"""Many runs of one pipeline at once, whose calls of models are made together.

    with batched(pipe, max_batch=8) as b:
        runs = [b.start(prompt=prompt, output="images") for prompt in prompts]
        images = [run.result() for run in runs]

`b` is a pipeline of the same class as `pipe`, with the same models; many threads and tasks may call it:

    b(**inputs), b.start(**inputs), b.stream(**inputs), b.acall(**inputs), b.astream(**inputs), b.resume(path),
    b.branch(path, at=...)       as for `ModularPipeline`
    b.client(name, priority=0)   the same pipeline for one client: each gets its turn; higher priorities come first
    b.report()                   a `BatchReport`: forwards, calls that they served, what runs alone and why, who waits

When calls of several runs wait at the same model with arguments that fit together, one forward serves them all.
Nothing is declared: any loop that runs here batches. Outside of `b` nothing changes, and after the `with` the models
are as they were. `docs/batching.md` says what results may differ in, and what `deterministic=True` promises.
"""

from loopwright.batching.pipeline import batched
from loopwright.batching.report import BatchReport, ModelReport, Refusal

__all__ = ["BatchReport", "ModelReport", "Refusal", "batched"]
