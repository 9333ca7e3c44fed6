"""What is known of the components of a `ComponentsManager`, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import torch

from loopwright.components.offload import memory_footprint

__all__ = ["INFO_FIELDS", "component_info", "components_table", "summarize_dict_by_value_and_parts"]

INFO_FIELDS = (
    "model_id",
    "added_time",
    "collection",
    "class_name",
    "size_gb",
    "adapters",
    "has_hook",
    "execution_device",
    "ip_adapter",
    "quantization",
)


def component_info(component_id: str, component: Any, added: float, collections: list[str]) -> dict[str, Any]:
    """What is known of a component: the fields of `INFO_FIELDS` that apply to it.

    Args:
        component_id: its id.
        component: the component.
        added: when it was added, in seconds since the epoch.
        collections: the names of the collections that it is in.
    """
    info: dict[str, Any] = {
        "model_id": component_id,
        "added_time": added,
        "collection": ", ".join(collections) or None,
    }
    if not isinstance(component, torch.nn.Module):
        return info
    hook = getattr(component, "_hf_hook", None)
    adapters = getattr(component, "peft_config", None)
    info |= {
        "class_name": type(component).__name__,
        "size_gb": memory_footprint(component) / 1024**3,
        "adapters": None if adapters is None else list(adapters),
        "has_hook": hook is not None,
        "execution_device": getattr(hook, "execution_device", None),
        "quantization": _quantization(component),
    }
    scales = _ip_adapter_scales(component)
    if scales:
        info["ip_adapter"] = summarize_dict_by_value_and_parts(scales)
    return info


def _quantization(model: Any) -> dict[str, Any] | None:
    config = getattr(getattr(model, "hf_quantizer", None), "quantization_config", None)
    if config is None:
        return None
    return dict(config.to_diff_dict() if hasattr(config, "to_diff_dict") else config.to_dict())


def _ip_adapter_scales(model: Any) -> dict[str, Any]:
    """The scales of a model's attention processors that belong to an IP-Adapter, by the names of the processors."""
    processors = getattr(model, "attn_processors", {}) if hasattr(model, "_load_ip_adapter_weights") else {}
    return {
        name: processor.scale
        for name, processor in processors.items()
        if "IPAdapter" in type(processor).__name__ and hasattr(processor, "scale")
    }


def summarize_dict_by_value_and_parts(d: dict[str, Any]) -> dict[str, Any]:
    """The keys of equal values as what they have in common: `{"up.0.a": 1, "up.0.b": 1}` becomes `{"up.0": 1}`.

    Args:
        d: values by names with dots.
    """
    keys_of: dict[Any, list[str]] = {}
    for key, value in d.items():
        keys_of.setdefault(tuple(value) if isinstance(value, list) else value, []).append(key)
    summary = {}
    for keys in keys_of.values():
        levels = zip(*(key.split(".") for key in keys), strict=False)  # those of the shortest key
        shared = takewhile(lambda parts: len(set(parts)) == 1, levels)
        summary[".".join(parts[0] for parts in shared)] = d[keys[0]]
    return summary


def components_table(components: Mapping[str, Any], collections: Mapping[str, list[str]]) -> str:
    """The components as text: the models, the others, and what is special about some of them.

    Args:
        components: the components by id.
        collections: for each id the names of the collections that it is in.
    """
    if not components:
        return "Components:\n  none"
    models = {key: value for key, value in components.items() if isinstance(value, torch.nn.Module)}
    parts = ["Components:"]
    if models:
        header = ("Name_ID", "Class", "Device: act(exec)", "Dtype", "Size (GB)", "Load ID", "Collection")
        parts += ["", "Models:", *_aligned([header, *(_row(*item, collections) for item in models.items())])]
    others = [
        (key, type(value).__name__, ", ".join(collections.get(key, [])) or "-")
        for key, value in components.items()
        if key not in models
    ]
    if others:
        parts += ["", "Other components:", *_aligned([("Name_ID", "Class", "Collection"), *others])]
    for key, model in models.items():
        info = component_info(key, model, 0.0, [])
        said = [f"  {field}: {info[field]}" for field in ("adapters", "ip_adapter", "quantization") if info.get(field)]
        parts += ["", f"{key}:", *said] if said else []
    return "\n".join(parts)


def _row(component_id: str, model: Any, collections: Mapping[str, list[str]]) -> tuple[str, ...]:
    info = component_info(component_id, model, 0.0, [])
    device = next((str(tensor.device) for tensor in model.parameters()), "-")
    return (
        component_id,
        info["class_name"],
        f"{device}({info['execution_device']})" if info["has_hook"] else device,
        str(getattr(model, "dtype", "-")),
        f"{info['size_gb']:.2f}",
        str(getattr(model, "_diffusers_load_id", "-")),
        ", ".join(collections.get(component_id, [])) or "-",
    )


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" | ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
