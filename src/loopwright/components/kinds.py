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


# what the models in a package of `diffusers.models` are for
_PURPOSES = {
    "autoencoders": "autoencoder",
    "controlnets": "ControlNet",
    "transformers": "denoiser",
    "unets": "denoiser",
}


def _purpose(cls: type) -> str | None:
    """What a class of models of diffusers, or a subclass, is for; None if that is not known, as of a wrapped one."""
    packages = [base.__module__.split(".") for base in cls.__mro__]
    known = [_PURPOSES.get(parts[2]) for parts in packages if parts[:2] == ["diffusers", "models"] and len(parts) > 3]
    return next(filter(None, known), None)


def other_kind(expected: Any, cls: Any) -> str | None:
    """What is wrong with a class where another is expected, for a message; None if it may stand there.

    Another class of the same kind may, as may what is of no known kind. A model may stand for another one, unless both
    are diffusers' and are for different things: an autoencoder is no denoiser.
    """
    there, here = kind_of_component(expected), kind_of_component(cls)
    if there == here == "model":
        there, here = _purpose(expected), _purpose(cls)
    if there is None or here is None or there == here:
        return None
    return (
        f"{article(cls.__name__)} `{cls.__name__}`, which is {article(here)} {here}, where the blocks expect "
        f"{article(there)} {there}, `{expected.__name__}`"
    )
