"""What kind of component a class is: a model does not take the place of a scheduler."""

from __future__ import annotations

from typing import Any

from loopwright.errors import article

__all__ = ["kind_of_component", "other_kind"]


def kind_of_component(cls: Any) -> str | None:
    """`model`, `scheduler`, `guider` or `tokenizer`; None if that is not known."""
    import torch
    from diffusers import AutoModel, SchedulerMixin
    from diffusers.guiders import BaseGuidance
    from transformers import PreTrainedTokenizerBase

    kinds: tuple[tuple[Any, str], ...] = (
        (torch.nn.Module, "model"),
        (AutoModel, "model"),
        (SchedulerMixin, "scheduler"),
        (BaseGuidance, "guider"),
        (PreTrainedTokenizerBase, "tokenizer"),
    )
    if not isinstance(cls, type):
        return None
    return next((kind for base, kind in kinds if issubclass(cls, base)), None)


def other_kind(expected: Any, cls: Any) -> str | None:
    """What is wrong with a class where another is expected, for a message; None if it may stand there.

    Another class of the same kind may, as may what is of no known kind.
    """
    there, here = kind_of_component(expected), kind_of_component(cls)
    if there is None or here is None or there == here:
        return None
    return (
        f"{article(cls.__name__)} `{cls.__name__}`, which is a {here}, where the blocks expect a {there}, "
        f"`{expected.__name__}`"
    )
