"""Models that wait on the CPU, and are on their device while they are called.

A hook of accelerate's kind brings a model to its device when it is called. A strategy says which others have to make
room for it. Runs may do so at the same time: a model that is in use stays where it is. Where one has to go that another
run uses, the call waits until that run has ended its call. In use means that a call of the model is in progress
(`forward`, `encode`, `decode`, `generate`), or the block that called one of its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import chain, combinations
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from accelerate.state import PartialState
from accelerate.utils import send_to_device
from accelerate.utils.memory import clear_device_cache
from accelerate.utils.modeling import convert_file_size_to_int
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from diffusers.utils.torch_utils import TorchDeviceBackend

from loopwright.components.guarded import guard, unguard, unguarded
from loopwright.components.turns import alone, is_inside, is_used, keep, undisturbed, vacated
from loopwright.errors import InvalidInputError, kind_of

__all__ = [
    "AutoOffloadStrategy",
    "CustomOffloadHook",
    "OffloadStrategy",
    "UserCustomOffloadHook",
    "custom_offload_with_hook",
    "is_offloaded",
    "memory_footprint",
]

# Takes `hooks` (of the models on the device), `model_id`, `model` and `execution_device` (of the one that is called),
# and returns the hooks of those that have to go.
OffloadStrategy = Callable[..., "Iterable[UserCustomOffloadHook]"]

# the model that is on its way to a device
_arriving: list[torch.nn.Module] = []


def memory_footprint(model: Any) -> int:
    """The bytes of a model's parameters and buffers."""
    if hasattr(model, "get_memory_footprint"):
        return int(model.get_memory_footprint())
    return sum(tensor.nbytes for tensors in (model.parameters(), model.buffers()) for tensor in tensors)


def _device_of(model: Any) -> torch.device | None:
    device = getattr(model, "device", None)
    if device is not None:
        return device  # type: ignore[no-any-return]
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), None)


def _is_in(models: Iterable[torch.nn.Module], model: torch.nn.Module) -> bool:
    return any(model is other for other in models)


def is_offloaded(model: torch.nn.Module) -> bool:
    """Whether a hook moves a model to its device when it is called."""
    return isinstance(vars(model).get("_hf_hook"), CustomOffloadHook)


class AutoOffloadStrategy:
    """Makes room for a model by as little as possible: the smallest models together that are large enough.

    Those that nobody uses are taken first, as there is no need to wait for them.

    Args:
        memory_reserve_margin: bytes of the device that are left free for what the models compute; or text, as "3GB".
    """

    def __init__(self, memory_reserve_margin: int | str = "3GB") -> None:
        self.memory_reserve_margin = convert_file_size_to_int(memory_reserve_margin)

    def __call__(
        self, hooks: Iterable[Any], model_id: str, model: torch.nn.Module, execution_device: torch.device
    ) -> list[Any]:
        """The hooks of the models that have to go, so that there is room for one more.

        Args:
            hooks: those of the models that are on the device.
            model_id: the id of the model that is to come.
            model: that model.
            execution_device: the device.
        """
        hooks = list(hooks)
        if not hooks:
            return []
        free, _ = TorchDeviceBackend(execution_device).mem_get_info()
        needed = memory_footprint(model) - (free - self.memory_reserve_margin)
        if needed < 0:
            return []
        idle = [hook for hook in hooks if not getattr(hook, "is_used", False)]
        return _smallest(idle, needed) or _smallest(hooks, needed) or hooks


def _smallest(hooks: list[Any], needed: int) -> list[Any]:
    """The models that together take the least memory that is enough; none if all of them are not."""
    sizes = {id(hook): memory_footprint(hook.model) for hook in hooks}
    largest_first = sorted(hooks, key=lambda hook: -sizes[id(hook)])
    enough = (
        chosen
        for count in range(1, len(hooks) + 1)
        for chosen in combinations(largest_first, count)
        if sum(sizes[id(hook)] for hook in chosen) >= needed
    )
    return list(min(enough, key=lambda chosen: sum(sizes[id(hook)] for hook in chosen), default=()))


class CustomOffloadHook(ModelHook):  # type: ignore[misc]
    """Brings a model to its device when it is called, and the arguments of the call with it.

    Args:
        execution_device: the device; accelerate's default if None.
        other_hooks: the hooks of models that may have to make room.
        offload_strategy: chooses those that have to; all of them if None.
    """

    def __init__(
        self,
        execution_device: str | int | torch.device | None = None,
        other_hooks: list[UserCustomOffloadHook] | None = None,
        offload_strategy: OffloadStrategy | None = None,
    ) -> None:
        device = PartialState().default_device if execution_device is None else execution_device
        self.execution_device = torch.device(device)
        self.other_hooks = other_hooks
        self.offload_strategy = offload_strategy
        self.model_id: str | None = None

    def set_strategy(self, offload_strategy: OffloadStrategy) -> None:
        self.offload_strategy = offload_strategy

    def add_other_hook(self, hook: UserCustomOffloadHook) -> None:
        """Add the hook of a model that may have to make room."""
        self.other_hooks = [*(self.other_hooks or ()), hook]

    def init_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        """Move the model to the CPU; one that is offloaded in groups places itself."""
        if _is_group_offload_enabled(module):
            return module
        with torch.inference_mode(False):
            return module.to("cpu")

    def __deepcopy__(self, memo: dict[int, Any]) -> CustomOffloadHook:
        # of a copied model: the other models are not copied with it
        copied = CustomOffloadHook(self.execution_device, self.other_hooks, self.offload_strategy)
        copied.model_id = self.model_id
        return copied

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # not in a call of the model: a block fires the hook by hand, and goes on to call parts of the model
        with nullcontext() if is_inside(module) else keep(module):
            self.bring(module)
        return send_to_device(args, self.execution_device), send_to_device(kwargs, self.execution_device)

    def bring(self, model: torch.nn.Module) -> None:
        """Have a model on the device, for a call that is in progress.

        Waits while a model that has to make room is in use by a run that does not wait for this one.
        """
        if self._is_here(model):
            return
        chosen: list[UserCustomOffloadHook] = []

        def in_the_way() -> list[torch.nn.Module]:
            chosen[:] = [] if self._is_here(model) else self._to_offload(model)
            return [other for hook in chosen for other in self._with_same_weights(hook)]

        with vacated(in_the_way) as free:
            if self._is_here(model):
                return
            with undisturbed():
                _arriving.append(model)
            try:
                leaving = [hook for hook in chosen if all(_is_in(free, m) for m in self._with_same_weights(hook))]
                for hook in leaving:
                    self.init_hook(hook.model)
                if leaving:
                    clear_device_cache()
                if not _is_group_offload_enabled(model):
                    with torch.inference_mode(False):
                        model.to(self.execution_device)
            except BaseException as error:
                error.add_note(f"while model `{self.model_id}` was brought to {self.execution_device}")
                self.init_hook(model)  # a part of it may be there
                raise
            finally:
                _arriving.clear()

    def _is_here(self, model: torch.nn.Module) -> bool:
        # one that begins to arrive is there in part
        with undisturbed():
            return not _is_in(_arriving, model) and _device_of(model) in (None, self.execution_device)

    def _with_same_weights(self, hook: UserCustomOffloadHook) -> list[torch.nn.Module]:
        """The model of a hook, and those that it has weights in common with: a part of it, what it is a part of."""
        others = [other.model for other in self.other_hooks or () if not other.weights.isdisjoint(hook.weights)]
        return others if _is_in(others, hook.model) else [hook.model, *others]

    def _to_offload(self, model: torch.nn.Module) -> Iterable[UserCustomOffloadHook]:
        there = [
            hook
            for hook in self.other_hooks or ()
            if hook.model is not model
            and _device_of(hook.model) == self.execution_device
            and not _is_group_offload_enabled(hook.model)
        ]
        if self.offload_strategy is None:
            return there
        chosen = self.offload_strategy(
            hooks=there, model_id=self.model_id, model=model, execution_device=self.execution_device
        )
        if not isinstance(chosen, Iterable):
            raise InvalidInputError(
                f"the offload strategy returned {kind_of(chosen)}; it must return the hooks of the models that have to "
                f"go, of those that it was given"
            )
        return chosen


class UserCustomOffloadHook:
    """A model and its hook.

    Args:
        model_id: the id of the model.
        model: the model.
        hook: its hook.

    Attributes:
        weights: the ids of the model's parameters.
    """

    def __init__(self, model_id: str, model: torch.nn.Module, hook: CustomOffloadHook) -> None:
        self.model_id = model_id
        self.model = model
        self.hook = hook
        self.weights = frozenset(map(id, model.parameters()))
        # the hook of another manager, in whose place this one is
        self._replaced: CustomOffloadHook | None = None

    @property
    def is_used(self) -> bool:
        """Whether it would have to be waited for before the model can be moved."""
        return is_used(self.model)

    def offload(self) -> None:
        """Move the model to the CPU, as soon as no other run uses it."""
        with alone([self.model]):
            self.hook.init_hook(self.model)

    def attach(self) -> None:
        """Put the hook on the model, and move the model to the CPU; a hook that accelerate has put there is removed.

        Raises:
            Exception: the model cannot be moved. It is as before, but for hooks of accelerate's.
        """
        with alone([self.model]):
            with unguarded(self.model):
                for part in self.model.modules():
                    # a part that is offloaded for itself keeps its hook
                    if not is_offloaded(part):
                        remove_hook_from_module(part)
            try:
                self.hook.init_hook(self.model)
            except BaseException as error:
                error.add_note(f"while model `{self.model_id}` was moved to the CPU, to be offloaded")
                raise
            self._replaced = vars(self.model).get("_hf_hook")
            self._put(self.hook)
            self.hook.model_id = self.model_id
            guard(self.model)

    def remove(self) -> None:
        """Take the hook off the model; that of another manager takes its place again."""
        with alone([self.model]):
            self.hook.model_id = None
            if vars(self.model).get("_hf_hook") is self.hook:
                replaced, self._replaced = self._replaced, None
                self._put(replaced if replaced is not None and replaced.model_id is not None else None)
            unguard(self.model)

    def _put(self, hook: CustomOffloadHook | None) -> None:
        with unguarded(self.model):
            remove_hook_from_module(self.model)
            if hook is not None:
                add_hook_to_module(self.model, hook)

    def add_other_hook(self, hook: UserCustomOffloadHook) -> None:
        self.hook.add_other_hook(hook)


def custom_offload_with_hook(
    model_id: str,
    model: torch.nn.Module,
    execution_device: str | int | torch.device | None = None,
    offload_strategy: OffloadStrategy | None = None,
) -> UserCustomOffloadHook:
    """Put a hook on a model that brings it to its device when it is called."""
    made = UserCustomOffloadHook(model_id, model, CustomOffloadHook(execution_device, None, offload_strategy))
    made.attach()
    return made
