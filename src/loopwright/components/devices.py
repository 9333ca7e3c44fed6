"""Devices that there are on this machine."""

from __future__ import annotations

from typing import Any

import torch

from loopwright.errors import InvalidInputError, brief

__all__ = ["usable_device"]


def usable_device(device: Any) -> torch.device:
    """A device, on which a tensor can be made.

    Args:
        device: the device, or its name, such as "cuda:1".

    Raises:
        InvalidInputError: there is no such device, or not on this machine.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidInputError(
            f"{brief(device)} is no device; it must be like 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ) from error
    try:
        torch.empty(0, device=found)
    # for a library that was built without it, an AssertionError
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInputError(f"the device {found} cannot be used on this machine: {reason}") from error
    return found
