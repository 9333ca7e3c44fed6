"""Classes of pipelines that are diffusers' and ours at the same time.

Blocks of a family reach for what its class of pipelines adds: sizes that follow from the models, LoRA loading. As with
blocks, that comes first, then what is ours.
"""

from __future__ import annotations

from typing import Any

import diffusers
import diffusers.modular_pipelines.modular_pipeline as library

from loopwright.pipeline import ModularPipeline

__all__ = ["bridged_pipeline_class", "pipeline_class_of_family"]


class _Pipeline(ModularPipeline, library.ModularPipeline):  # type: ignore[misc]
    pass


_made: dict[type, type[Any]] = {library.ModularPipeline: _Pipeline}


def bridged_pipeline_class(cls: type[Any]) -> type[Any]:
    """The class of ours for a class of diffusers' pipelines, always the same one."""
    return _made.get(cls) or _made.setdefault(cls, _bridged_pipeline_class(cls))


def _bridged_pipeline_class(cls: type[Any]) -> type[Any]:
    body = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls, _Pipeline), body)


def pipeline_class_of_family(model_name: str | None) -> type[Any]:
    """The class of pipelines for a family of models (`flux`, `wan`)."""
    name_of_class = library.MODULAR_PIPELINE_MAPPING.get(model_name)
    theirs = library.ModularPipeline if name_of_class is None else getattr(diffusers, name_of_class())
    return bridged_pipeline_class(theirs)


def bridged_pipeline(pipeline: Any) -> Any:
    """A pipeline of ours with the blocks of one of diffusers, and the same components and configuration values."""
    if isinstance(pipeline, ModularPipeline):
        return pipeline
    bridged = bridged_pipeline_class(type(pipeline))(blocks=pipeline._blocks)
    bridged.register_components(**pipeline.components)
    bridged.update_components(**{name: pipeline.config[name] for name in bridged._config_specs})
    return bridged
