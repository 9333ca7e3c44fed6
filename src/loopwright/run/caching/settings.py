"""The settings of the process and of the thread on which the bits of a result may depend."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import overrides
from torch.utils import _device
from torch.utils import _python_dispatch as dispatch

from loopwright.run.caching.content import Incomparable

__all__ = ["random_states", "settings"]


def settings() -> list[Any]:
    """Grad, inference and autocast modes, defaults, determinism, precision, threads.

    Raises:
        Incomparable: a mode is on that may do anything.
    """
    modes = [
        *overrides._get_current_function_mode_stack(),  # type: ignore[no-untyped-call]
        *dispatch._get_current_dispatch_mode_stack(),
    ]
    for mode in modes:
        if not isinstance(mode, _device.DeviceContext):
            raise Incomparable(f"the torch mode `{type(mode).__name__}` is on")
    cuda: Any = torch.backends.cuda
    cudnn = torch.backends.cudnn
    return [
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        [
            [device, str(torch.get_autocast_dtype(device))]
            for device in ("cpu", "cuda", "mps", "xpu")
            if torch.is_autocast_enabled(device)
        ],
        str(torch.get_default_dtype()),
        str(torch.get_default_device()),
        [torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()],
        torch.get_float32_matmul_precision(),
        [cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32],
        [
            str(getattr(cuda.matmul, name, None))
            for name in ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
        ],
        [
            cuda.flash_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
            cuda.math_sdp_enabled(),
            cuda.cudnn_sdp_enabled(),
        ],
        torch.backends.mkldnn.enabled,
        torch.get_num_threads(),
    ]


def random_states() -> list[Any]:
    """Where the global generators are; two of these are equal if nothing was drawn between them."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    states: list[Any] = [
        random.getstate(),
        (np.asarray(keys).tobytes(), position, has_gauss, gauss),
        torch.get_rng_state().numpy().tobytes(),
    ]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states += [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    return states
