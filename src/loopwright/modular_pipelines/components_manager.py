"""The names of `diffusers.modular_pipelines.components_manager`."""

from loopwright.components.manager import ComponentsManager
from loopwright.components.offload import (
    AutoOffloadStrategy,
    CustomOffloadHook,
    UserCustomOffloadHook,
    custom_offload_with_hook,
)
from loopwright.components.report import summarize_dict_by_value_and_parts

__all__ = [
    "AutoOffloadStrategy",
    "ComponentsManager",
    "CustomOffloadHook",
    "UserCustomOffloadHook",
    "custom_offload_with_hook",
    "summarize_dict_by_value_and_parts",
]
