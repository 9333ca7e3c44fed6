"""The blocks, and the class of the pipeline, that a repository asks for."""

from __future__ import annotations

from typing import Any

import diffusers
import diffusers.modular_pipelines.modular_pipeline as library

import loopwright.diffusion
from loopwright.blocks.sub_blocks import as_block
from loopwright.bridge.pipelines import bridged_pipeline_class, modular_class_of, pipeline_class_of_family
from loopwright.components import CLASSIC_INDEX, MODULAR_INDEX, Repository, read_index
from loopwright.errors import ComponentLoadError, did_you_mean
from loopwright.pipeline import ModularPipeline

__all__ = ["blocks_by_name", "blocks_of_repository"]

_CODE_CONFIG = "modular_config.json"


def blocks_of_repository(repository: Repository, trust_remote_code: bool) -> tuple[type[Any], Any]:
    """The class of the pipeline that a repository holds, and its blocks.

    Args:
        repository: the repository.
        trust_remote_code: whether blocks may be made from code that it brings.

    Raises:
        ComponentLoadError: it holds no pipeline; or brings code, which is not trusted.
    """
    blocks = _own_blocks(repository, trust_remote_code)
    if blocks is not None:
        return _class_for(blocks), blocks
    index = read_index(repository)
    if index is None:
        raise ComponentLoadError(
            f"{repository} holds no pipeline: it has neither {MODULAR_INDEX} nor {CLASSIC_INDEX} nor {_CODE_CONFIG}"
        )
    if index.is_classic:
        classic = getattr(diffusers, index.pipeline_class or "", None)
        if classic is None:
            raise ComponentLoadError(
                f"{CLASSIC_INDEX} of {repository} names the pipeline `{index.pipeline_class}`, which diffusers "
                f"{diffusers.__version__} does not have"
            )
        cls = bridged_pipeline_class(modular_class_of(classic, index.configs))
        return cls, blocks_by_name(cls.default_blocks_name)
    theirs: Any = getattr(diffusers, index.pipeline_class or "", None)
    if not (isinstance(theirs, type) and issubclass(theirs, library.ModularPipeline)):
        theirs = library.ModularPipeline
    name = index.blocks_class or theirs.default_blocks_name
    if name is None:
        raise ComponentLoadError(f"{MODULAR_INDEX} of {repository} does not name the class of its blocks")
    made = blocks_by_name(name, f"{MODULAR_INDEX} of {repository}")
    if not made.sub_blocks and theirs.default_blocks_name is not None:
        # blocks that were put together without a class of their own: those of the family stand for them
        made = blocks_by_name(theirs.default_blocks_name)
    return (_class_for(made) if theirs is library.ModularPipeline else bridged_pipeline_class(theirs)), made


def blocks_by_name(name: str, place: str = "") -> Any:
    """Blocks of a class of ours or of diffusers.

    Raises:
        ComponentLoadError: there is no such class.
    """
    found = (
        getattr(loopwright.diffusion, name, None) or getattr(diffusers, name, None) or getattr(loopwright, name, None)
    )
    if found is None:
        known = [known for known in (*loopwright.diffusion.__all__, *dir(diffusers)) if known.endswith("Blocks")]
        raise ComponentLoadError(
            f"{place or 'a pipeline'} names the blocks `{name}`, which neither loopwright nor diffusers "
            f"{diffusers.__version__} has{did_you_mean(name, known)}; make the pipeline with your own blocks: "
            f"`{name}().init_pipeline(...)`"
        )
    return as_block(found, f"`{name}`")


def _class_for(blocks: Any) -> type[Any]:
    """The class of pipelines for blocks."""
    if blocks.model_name in library.MODULAR_PIPELINE_MAPPING:
        return pipeline_class_of_family(blocks.model_name)
    return ModularPipeline


def _own_blocks(repository: Repository, trust_remote_code: bool) -> Any:
    """Blocks from code that a repository brings; None if it brings none.

    Raises:
        ComponentLoadError: the code is not trusted.
    """
    config = repository.json(_CODE_CONFIG) or {}
    reference = (config.get("auto_map") or {}).get("ModularPipelineBlocks")
    if reference is None:
        return None
    module, _, class_name = reference.rpartition(".")
    if not trust_remote_code:
        raise ComponentLoadError(
            f"{repository} brings code of its own: `{class_name}` in {module}.py. Read the file, and if you trust it, "
            f"give `trust_remote_code=True`"
        )
    from diffusers.utils.dynamic_modules_utils import get_class_from_dynamic_module

    options = {**repository.options, "revision": repository.revision}
    cls = get_class_from_dynamic_module(
        repository.source, module_file=f"{module}.py", class_name=class_name, trust_remote_code=True, **options
    )
    return as_block(cls, f"`{class_name}` of {repository}")
