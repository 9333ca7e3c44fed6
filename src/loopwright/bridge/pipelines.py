"""Classes of pipelines that are diffusers' and ours at the same time.

Blocks of a family reach for what its class of pipelines adds: sizes that follow from the models, LoRA loading. As with
blocks, that comes first, then what is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import diffusers
import diffusers.modular_pipelines.modular_pipeline as library
from diffusers.pipelines.auto_pipeline import _get_model

from loopwright.bridge.declarations import converted
from loopwright.components import Origin
from loopwright.errors import BlockTypeError, MissingComponentError
from loopwright.pipeline import ModularPipeline

__all__ = ["bridged_pipeline", "bridged_pipeline_class", "modular_class_of", "pipeline_class_of_family"]


class _Pipeline(ModularPipeline, library.ModularPipeline):  # type: ignore[misc]
    pass


_made: dict[type, type[Any]] = {library.ModularPipeline: _Pipeline}


def bridged_pipeline_class(cls: type[Any]) -> type[Any]:
    """The class of ours for a class of diffusers' pipelines, always the same one."""
    return _made.get(cls) or _made.setdefault(cls, _bridged_pipeline_class(cls))


def _bridged_pipeline_class(cls: type[Any]) -> type[Any]:
    body: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    if hasattr(cls, "load_lora_weights"):
        body["load_lora_weights"] = _loading_adapters(cls.load_lora_weights)
    return type(cls.__name__, (cls, _Pipeline), body)


def _loading_adapters(load: Callable[..., Any]) -> Callable[..., Any]:
    """diffusers' `load_lora_weights`, which says it when a model that the adapters are for is not loaded."""

    @wraps(load)
    def load_lora_weights(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return load(self, *args, **kwargs)
        except AttributeError as error:
            missing = next((name for name in self._lora_loadable_modules if getattr(self, name, None) is None), None)
            if missing is None or "'NoneType' object" not in str(error):
                raise
            raise MissingComponentError(
                f"`load_lora_weights` works with the component `{missing}`, which is not loaded: "
                f"`pipe.update_components({missing}=...)`"
            ) from error

    return load_lora_weights


def pipeline_class_of_family(model_name: str | None) -> type[Any]:
    """The class of pipelines for a family of models (`flux`, `wan`)."""
    name_of_class = library.MODULAR_PIPELINE_MAPPING.get(model_name)
    theirs = library.ModularPipeline if name_of_class is None else getattr(diffusers, name_of_class())
    return bridged_pipeline_class(theirs)


def bridged_pipeline(pipeline: library.ModularPipeline | diffusers.DiffusionPipeline) -> Any:
    """A pipeline of ours with the components and configuration values of one of diffusers.

    Raises:
        BlockTypeError: it is a classic pipeline, and its family has no blocks.
    """
    if isinstance(pipeline, ModularPipeline):
        return pipeline
    if isinstance(pipeline, library.ModularPipeline):
        bridged = bridged_pipeline_class(type(pipeline))(blocks=pipeline._blocks)
        given = {name: component for name, component in pipeline.components.items() if name in bridged._component_specs}
        # also where they are loaded from
        bridged._component_specs |= {name: converted([pipeline._component_specs[name]])[0] for name in given}
        source = bridged._pretrained_model_name_or_path = pipeline._pretrained_model_name_or_path
        bridged._origin = Origin(None if source is None else str(source))
    else:
        cls = modular_class_of(type(pipeline), dict(pipeline.config))
        bridged = bridged_pipeline_class(cls)(blocks=getattr(diffusers, cls.default_blocks_name))
        known = bridged._component_specs
        given = {name: value for name, value in pipeline.components.items() if name in known and value is not None}
    bridged.register_components(**given)
    configs = bridged._config_specs.keys() & pipeline.config.keys()
    bridged.update_components(**{name: pipeline.config[name] for name in configs})
    return bridged


def modular_class_of(classic: type[Any], config: dict[str, Any]) -> type[Any]:
    """The class of modular pipelines for a class of classic ones.

    Args:
        classic: the class, `FluxImg2ImgPipeline`.
        config: the configuration of the pipeline, which tells some families' variants apart.

    Raises:
        BlockTypeError: its family has no blocks.
    """
    families = [_get_model(cls.__name__) for cls in classic.__mro__]
    for family in filter(None, families):
        # blocks of some families have workflows for what classic pipelines have classes for
        for name in (family, family.removesuffix("-controlnet"), family.removesuffix("-controlnet-union")):
            if name in library.MODULAR_PIPELINE_MAPPING:
                found = getattr(diffusers, library.MODULAR_PIPELINE_MAPPING[name](config))
                if name == family or "controlnet" in getattr(diffusers, found.default_blocks_name)().component_names:
                    return found  # type: ignore[no-any-return]
    stem = classic.__name__.removesuffix("Pipeline").removesuffix("ImageToVideo")
    found = getattr(diffusers, f"{stem}ModularPipeline", None)
    if not isinstance(found, type):
        known = ", ".join(library.MODULAR_PIPELINE_MAPPING)
        raise BlockTypeError(
            f"`{classic.__name__}` has no blocks in diffusers {diffusers.__version__}, so it cannot be run here; the "
            f"families that have are {known}"
        )
    return found
