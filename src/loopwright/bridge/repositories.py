"""The blocks, and the class of the pipeline, that a repository asks for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import diffusers
import diffusers.modular_pipelines.modular_pipeline as library
from diffusers.utils import dynamic_modules_utils
from diffusers.utils.import_utils import _is_distribution_installed
from packaging.specifiers import SpecifierSet

import loopwright.diffusion
from loopwright.blocks.sub_blocks import as_block
from loopwright.bridge.folder_code import code_in_folder
from loopwright.bridge.pipelines import bridged_pipeline_class, modular_class_of, pipeline_class_of_family
from loopwright.components import CLASSIC_INDEX, MODULAR_INDEX, PipelineIndex, Repository, code_files, read_index
from loopwright.errors import BlockTypeError, ComponentLoadError, UnknownInputError, brief, did_you_mean
from loopwright.pipeline import ModularPipeline
from loopwright.specs.repository import HUB_OPTIONS

__all__ = ["CODE_CONFIG", "blocks_by_name", "blocks_of_repository", "config_of_blocks", "load_blocks"]

CODE_CONFIG = "modular_config.json"


_WITHOUT_CLASS = ("SequentialPipelineBlocks", "LoopSequentialPipelineBlocks", "AutoPipelineBlocks")


def blocks_of_repository(repository: Repository, trust_remote_code: bool) -> tuple[type[Any], Any]:
    """The class of the pipeline that a repository holds, and its blocks.

    Args:
        repository: the repository.
        trust_remote_code: whether blocks may be made from code that it brings.

    Raises:
        ComponentLoadError: it holds no pipeline; or brings code, which is not trusted.
    """
    blocks = _own_blocks(repository, trust_remote_code)
    index = read_index(repository)
    if index is None:
        if blocks is None:
            raise ComponentLoadError(
                f"{repository} holds no pipeline: it has neither {MODULAR_INDEX} nor {CLASSIC_INDEX} nor {CODE_CONFIG}"
                f"{'' if repository.is_reached else ', of what was downloaded before; the hub cannot be reached'}"
            )
        return _class_for(blocks), blocks
    try:
        cls = _class_of_index(index)
    except ComponentLoadError:
        if blocks is None:
            raise
        cls = None
    if blocks is None:
        blocks = _blocks_of_index(index, None if cls is None else cls.default_blocks_name)
    return (_class_for(blocks) if cls is None else bridged_pipeline_class(cls)), blocks


def _class_of_index(index: PipelineIndex) -> type[Any] | None:
    """The class of modular pipelines of a family of diffusers that an index asks for; None if it asks for no family.

    Raises:
        ComponentLoadError: it is a classic index, of a pipeline that there is not, or whose family has no blocks.
    """
    named: Any = getattr(diffusers, index.pipeline_class or "", None)
    if not index.is_classic:
        of_family = isinstance(named, type) and issubclass(named, library.ModularPipeline)
        return named if of_family and named is not library.ModularPipeline else None
    if not isinstance(named, type):
        raise ComponentLoadError(
            f"{CLASSIC_INDEX} of {index.repository} names the pipeline `{index.pipeline_class}`, which diffusers "
            f"{diffusers.__version__} does not have"
            f"{did_you_mean(str(index.pipeline_class), [name for name in dir(diffusers) if 'Pipeline' in name])}"
        )
    try:
        return modular_class_of(named, index.configs)
    except BlockTypeError as error:
        raise ComponentLoadError(
            f"the pipeline of {CLASSIC_INDEX} of {index.repository} has no blocks: {error}"
        ) from error


def _blocks_of_index(index: PipelineIndex, default: str | None) -> Any:
    """The blocks that an index names.

    Args:
        index: the index.
        default: the name of the blocks of its family, which those of a classic one are; None if it is of none.

    Raises:
        ComponentLoadError: it names none, or none that there are.
    """
    repository = index.repository
    name = index.blocks_class or default
    if name is None:
        raise ComponentLoadError(
            f"{MODULAR_INDEX} of {repository} does not name the class of its blocks; make the pipeline with blocks of "
            f"your own: `blocks.init_pipeline({repository.source!r})`"
        )
    made = blocks_by_name(name, f"{MODULAR_INDEX} of {repository}")
    if not made.sub_blocks and default is not None:
        # blocks that were put together without a class of their own: those of the family stand for them
        return blocks_by_name(default)
    if name in _WITHOUT_CLASS:
        raise ComponentLoadError(
            f"{MODULAR_INDEX} of {repository} does not say what its blocks are: they were put together without a class "
            f"of their own. Make them again, and call `blocks.init_pipeline({repository.source!r})`"
        )
    return made


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


def load_blocks(source: Any, trust_remote_code: bool = False, **kwargs: Any) -> Any:
    """Blocks whose code is in a folder or a repository; as `ModularPipelineBlocks.from_pretrained` says.

    Raises:
        ComponentLoadError: there are no blocks; or their code is not trusted, or fails, or needs packages that are not
            installed.
    """
    subfolder = kwargs.pop("subfolder", None)
    hub = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
    repository = Repository(source, **hub)
    blocks = _own_blocks(repository, trust_remote_code, subfolder, kwargs)
    if blocks is None:
        raise ComponentLoadError(
            f"{repository} brings no blocks: {_in(subfolder, CODE_CONFIG)} is not there, or names no class; a pipeline "
            f"of blocks that are installed is loaded with `ModularPipeline.from_pretrained`"
        )
    return blocks


def config_of_blocks(source: Any, **kwargs: Any) -> dict[str, Any]:
    """What the modular_config.json of a folder or a repository says.

    Raises:
        ComponentLoadError: there is none, or it cannot be read.
    """
    subfolder = kwargs.pop("subfolder", None)
    repository = Repository(source, **kwargs)
    config = repository.json(_in(subfolder, CODE_CONFIG))
    if config is None:
        raise ComponentLoadError(f"{repository} has no {_in(subfolder, CODE_CONFIG)}")
    return config


def _in(subfolder: str | None, name: str) -> str:
    return f"{subfolder}/{name}" if subfolder else name


def _own_blocks(
    repository: Repository,
    trust_remote_code: bool,
    subfolder: str | None = None,
    arguments: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Blocks from code that a repository brings; None if it brings none.

    Args:
        repository: the repository.
        trust_remote_code: whether the code may run.
        subfolder: the folder of the repository.
        arguments: for the class of the blocks.

    Raises:
        ComponentLoadError: the code is not trusted, or fails, or needs packages that are not installed.
        UnknownInputError: the class does not take an argument.
    """
    config = repository.json(_in(subfolder, CODE_CONFIG)) or {}
    auto_map = config.get("auto_map") or {}
    reference = auto_map.get("ModularPipelineBlocks") if isinstance(auto_map, dict) else auto_map
    if reference is None:
        return None
    module, _, class_name = reference.rpartition(".") if isinstance(reference, str) else ("", "", "")
    if not (isinstance(auto_map, dict) and module):
        raise ComponentLoadError(
            f"{_in(subfolder, CODE_CONFIG)} of {repository} has {brief(auto_map)} as `auto_map`; it must be "
            f'{{"ModularPipelineBlocks": "file.Class"}}'
        )
    file = _in(subfolder, f"{module}.py")
    if repository.file(file) is None:
        # blocks that are installed; what else is not there is an error that names the class
        return blocks_by_name(class_name, f"{_in(subfolder, CODE_CONFIG)} of {repository}, which has no {module}.py,")
    if not trust_remote_code:
        raise ComponentLoadError(
            f"{repository} brings code of its own: `{class_name}` in {file}. Read the file, and if you trust it, give "
            f"`trust_remote_code=True`"
        )
    if dynamic_modules_utils.DIFFUSERS_DISABLE_REMOTE_CODE:
        raise ComponentLoadError(
            f"{repository} brings code of its own, `{class_name}` in {file}, and the environment variable "
            f"DIFFUSERS_DISABLE_REMOTE_CODE forbids that it runs"
        )
    _require_packages(repository, config.get("requirements") or {})
    try:
        files = code_files(f"{module}.py", lambda name: repository.file(_in(subfolder, name)))
        code = code_in_folder(files[f"{module}.py"].parent, module)
        cls = getattr(code, class_name, None)
        if cls is None:
            raise NameError(f"it has no class `{class_name}`{did_you_mean(class_name, vars(code))}")
        accepted = inspect.signature(cls).parameters
        any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
        for name in () if any_name else arguments.keys() - accepted.keys():
            raise UnknownInputError(f"`{class_name}` of {repository} takes no `{name}`{did_you_mean(name, accepted)}")
        made = cls(**arguments)
    except (ComponentLoadError, UnknownInputError):
        raise
    except Exception as error:
        raise ComponentLoadError(
            f"the blocks `{class_name}` of {repository} could not be made of {file}: {type(error).__name__}: {error}"
        ) from error
    return as_block(made, f"`{class_name}` of {repository}")


def _require_packages(repository: Repository, requirements: Mapping[str, Any]) -> None:
    """Check that the packages that the code of a repository needs are installed.

    Raises:
        ComponentLoadError: some are not, or in another version.
    """
    missing = []
    for name, versions in requirements.items():
        installed, version = _is_distribution_installed(name)
        if not installed:
            missing.append(f"{name}{versions or ''}")
        elif versions and not SpecifierSet(versions).contains(version, prereleases=True):
            missing.append(f"{name}{versions} (not {version})")
    if missing:
        raise ComponentLoadError(
            f"the code of {repository} needs packages that are not installed: {', '.join(missing)}; install them with "
            f"`pip install`"
        )
