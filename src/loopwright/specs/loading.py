"""Loading one component with the `from_pretrained` of its class."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from loopwright.errors import ComponentLoadError, InvalidInputError, did_you_mean
from loopwright.specs.diagnosis import diagnosis
from loopwright.specs.repository import HUB_OPTIONS, Place, Repository

__all__ = ["MODEL_OPTIONS", "load_component"]

# what `from_pretrained` of models takes; a tokenizer would keep it, and could not be saved then
MODEL_OPTIONS = (
    "device_map",
    "disable_mmap",
    "dtype",
    "ignore_mismatched_sizes",
    "low_cpu_mem_usage",
    "max_memory",
    "offload_folder",
    "offload_state_dict",
    "quantization_config",
    "use_safetensors",
    "variant",
)


def load_component(name: str, type_hint: Any, place: Place, options: dict[str, Any]) -> Any:
    """Load a component; nothing about it is guessed or made up.

    Args:
        name: its name in the pipeline, for messages.
        type_hint: its class; None for the class that its configuration names.
        place: where it comes from.
        options: keyword arguments for the class.

    Raises:
        ComponentLoadError: it could not be loaded, or only in part.
        InvalidInputError: `dtype` is no dtype, or given twice.
    """
    import torch
    from diffusers import AutoModel
    from diffusers.loaders.single_file_utils import _is_single_file_path_or_url

    options = {**options, "dtype": _dtype(name, options)}
    if options["dtype"] is None:
        del options["dtype"]
    options.pop("torch_dtype", None)
    from_file = _is_single_file_path_or_url(place.source)
    if type_hint is None and from_file:
        raise ComponentLoadError(f"component `{name}` is loaded from a single file: its spec needs a `type_hint`")
    loader = AutoModel if type_hint is None else type_hint
    is_model = issubclass(loader, (torch.nn.Module, AutoModel)) if isinstance(loader, type) else False
    is_model = is_model or hasattr(loader, "_model_mapping")  # an automatic class of transformers
    if not is_model:
        options = {option: value for option, value in options.items() if option not in MODEL_OPTIONS}
    called = f"component `{name}` ({loader.__name__})"
    try:
        return _loaded(loader, place, options, from_file, is_model)
    except _NoLoaderError as error:
        raise ComponentLoadError(
            f"{called} cannot be loaded: the class has no `{error}`; make the component yourself, and give it to "
            f"`pipe.update_components({name}=...)`"
        ) from None
    except Exception as error:
        hub = {option: options[option] for option in HUB_OPTIONS if option in options and option != "revision"}
        reason = diagnosis(name, loader, place, error, hub, options.get("trust_remote_code"))
        raise ComponentLoadError(f"{called} could not be loaded from {place}: {reason}") from error


class _NoLoaderError(Exception):
    """The class of a component cannot be loaded."""


class IncompleteError(Exception):
    """The files of a component do not have all of it."""


def _loaded(loader: Any, place: Place, options: dict[str, Any], from_file: bool, is_model: bool) -> Any:
    from diffusers import AutoModel

    kept = {"subfolder": place.subfolder, "variant": place.variant, "revision": place.revision}
    if not is_model:
        del kept["variant"]
    if "trust_remote_code" in options and (
        loader.__module__.startswith("diffusers.") and not (loader is AutoModel and _has_code(place, options))
    ):
        options = {option: value for option, value in options.items() if option != "trust_remote_code"}
    method = getattr(loader, "from_single_file" if from_file else "from_pretrained", None)
    if method is None:
        raise _NoLoaderError("from_single_file" if from_file else "from_pretrained")
    info: dict[str, Any] = {}
    if from_file or not is_model or not _tells_what_was_missing(loader):
        component = method(place.source, **kept, **options)
    else:
        component, info = method(place.source, **kept, **options, output_loading_info=True)
    if is_model:
        _require_all_weights(component, info.get("missing_keys", ()), options)
    else:
        _require_vocabulary(component, place, options)
    return component


def _require_vocabulary(component: Any, place: Place, options: dict[str, Any]) -> None:
    """Refuse a tokenizer whose vocabulary is not there: the library makes one that knows no words.

    Raises:
        IncompleteError: none of its files is there.
    """
    names = getattr(component, "vocab_files_names", None)
    if not names:
        return
    files = ["tokenizer.json", *(name for name in names.values() if name != "tokenizer.json")]
    hub = {option: options[option] for option in HUB_OPTIONS if option in options}
    repository = Repository(place.source, **{"revision": place.revision, **hub})
    if not any(repository.file(place.file(name)) for name in files):
        raise IncompleteError(f"it has no vocabulary, which is in {' or '.join(sorted(files))}; get these files")


def _tells_what_was_missing(loader: type[Any]) -> bool:
    from diffusers import ModelMixin
    from transformers import PreTrainedModel

    return issubclass(loader, (ModelMixin, PreTrainedModel))


def _require_all_weights(model: Any, missing: Iterable[str], options: dict[str, Any]) -> None:
    """Refuse a model of which a part is not in the file.

    The libraries warn, and leave it without values, or with random ones.

    Args:
        model: the model.
        missing: the names that its library says were missing.
        options: what it was loaded with.

    Raises:
        IncompleteError: a part is missing.
    """
    lacking = set() if options.get("ignore_mismatched_sizes") else set(missing)
    if getattr(model, "hf_device_map", None) is None:  # otherwise some may be elsewhere
        lacking |= {name for name, value in model.named_parameters() if value.is_meta}
    if lacking:
        raise IncompleteError(
            f"its weights lack {_some(sorted(lacking))}: they are of another model, or only a part of one; give "
            f"`ignore_mismatched_sizes=True, low_cpu_mem_usage=False` if the rest is to be random"
        )


def _some(names: list[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in names[:3])
    return listed if len(names) <= 3 else f"{listed} and {len(names) - 3} more"


def _has_code(place: Place, options: dict[str, Any]) -> bool:
    hub = {option: options[option] for option in HUB_OPTIONS if option in options}
    config = Repository(place.source, **{"revision": place.revision, **hub}).json(place.file("config.json")) or {}
    return "AutoModel" in config.get("auto_map", ())


def _dtype(name: str, options: dict[str, Any]) -> Any:
    """The dtype among the options.

    Raises:
        InvalidInputError: it is none, or given twice.
    """
    import torch

    dtype, older = options.get("dtype"), options.get("torch_dtype")
    if older is not None:
        if dtype is not None:
            raise InvalidInputError(
                f"for component `{name}` you passed both `dtype` and `torch_dtype`, which is an older name for it; "
                f"pass `dtype` only"
            )
        warnings.warn("`torch_dtype` is an older name for `dtype`: write `dtype=...`", FutureWarning, stacklevel=4)
        dtype = older
    named = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if dtype is None or isinstance(named, torch.dtype):
        return named
    known = [attribute for attribute, value in vars(torch).items() if isinstance(value, torch.dtype)]
    raise InvalidInputError(
        f"the `dtype` of component `{name}` is {dtype!r}, which is no dtype"
        f"{did_you_mean(str(dtype), known)}; give a `torch.dtype`, such as `torch.bfloat16`"
    )
