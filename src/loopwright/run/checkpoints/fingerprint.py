"""What a pipeline is, so that a run is not resumed in another one."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import weakref
from typing import Any

import torch

from loopwright.blocks import ModularPipelineBlocks, walk
from loopwright.components import adapters
from loopwright.components.turns import unchanged
from loopwright.errors import CheckpointMismatchError
from loopwright.run.checkpoints.checksum import checksum
from loopwright.run.checkpoints.comparison import tensor_bytes
from loopwright.run.checkpoints.encoder import class_key

__all__ = ["compare", "component_fingerprint", "fingerprint", "weights_digest"]

# attributes of composites that say what the tree says, or say it to readers
_OF_THE_TREE = ("block_classes", "block_names", "description")
# where a class, an entry of a configuration, or what else there is of a model begins
_BEGIN = re.compile(r':(?=\w)|[,{] |\{(?=")| (?=weights |adapters )')
_lock = threading.Lock()
_digests: weakref.WeakKeyDictionary[torch.nn.Module, tuple[Any, str]] = weakref.WeakKeyDictionary()


def fingerprint(pipeline: Any, anew: bool = False) -> dict[str, dict[str, str]]:
    """The parts of a pipeline that its results depend on, each as a name and what is there.

    Args:
        pipeline: the pipeline.
        anew: whether all weights are digested, also those whose digest is known.
    """
    components = {name: component_fingerprint(component, anew) for name, component in pipeline.components.items()}
    return {
        "block": {path or "the whole": _block(block) for path, block in walk(pipeline._blocks)},
        "component": components,
        "configuration value": {name: _plain(pipeline.config[name]) for name in pipeline._config_specs},
    }


def component_fingerprint(component: Any, anew: bool = False) -> str:
    """A component by its class, its configuration, its weights, and what is set of its adapters; see `fingerprint`."""
    described = "none" if component is None else class_key(type(component))
    config = getattr(component, "config", None)
    if config is not None:
        described += " " + _plain(config)
    if isinstance(component, torch.nn.Module):
        described += " weights " + weights_digest(component, anew)
        if adapters.has_adapters(component):
            described += " adapters " + _active_adapters(component)
    return described


def _active_adapters(model: torch.nn.Module) -> str:
    """The adapters that a model works with, and their scales; by a digest where they are not the same in all layers."""
    with unchanged(model):
        layers = adapters.read(model)
    active = []
    for names, is_off, scales in layers:
        named = () if is_off else names if isinstance(names, tuple) else (names,)
        scale_of = dict(scales)
        # in the order in which they are added
        active.append(" + ".join(f"{name} at {scale_of[name]}" for name in named if name in scale_of))
    # a layer that they all leave alone says nothing
    found = {*active} - {""} or {"none"}
    if len(found) == 1:
        return found.pop()
    return "of each layer " + hashlib.sha256(json.dumps(active).encode()).hexdigest()[:32]


def _block(block: ModularPipelineBlocks) -> str:
    """A block by its class and what it was made with; a leaf by what it reads and writes, too."""
    made_with = {name: value for name, value in vars(block).items() if name[0] != "_" and name not in _OF_THE_TREE}
    described = class_key(type(block)) + (f" {_plain(made_with)}" if made_with else "")
    if block.sub_blocks:
        return described
    reads = ", ".join(str(name) for name in block.input_names)
    return f"{described} ({reads}) -> ({', '.join(block.intermediate_output_names)})"


def compare(saved: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> None:
    """Compare two fingerprints, both ways.

    Raises:
        CheckpointMismatchError: they differ; the message says in what.
    """
    differences = []
    for kind in now:
        before, after = saved.get(kind, {}), now[kind]
        differences += _each(kind, [name for name in before if name not in after], "gone")
        differences += _each(kind, [name for name in after if name not in before], "new")
        both = [name for name in before if name in after]
        differences += [
            f"{kind} `{name}` {_difference(before[name], after[name])}" for name in both if before[name] != after[name]
        ]
        order = [name for name in after if name in before]
        if kind == "block" and both != order:
            differences.append(f"the order of the blocks was {_listed(both)} and is {_listed(order)}")
    if differences:
        raise CheckpointMismatchError(
            f"the run was saved in another pipeline and would not go on as it began: {'; '.join(differences)}; "
            f"resume it in a pipeline as it was then, or begin a new run"
        )


def _each(kind: str, names: list[str], what: str) -> list[str]:
    """What became of some parts; of many, such as those of other workflows, only how many there are."""
    if len(names) > 3:
        return [f"{len(names)} {kind}s are {what}, the first is `{names[0]}`"]
    return [f"{kind} `{name}` is {what}" for name in names]


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _difference(before: str, after: str) -> str:
    """The two, cut to where they differ."""
    start = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    # from the beginning of the class or of the entry that differs
    begins = [begin.end() for begin in _BEGIN.finditer(before) if begin.end() <= start]
    start = begins[-1] if begins and start - begins[-1] < 60 else max(0, start - 20)
    if before.startswith("weights ", start) and after.startswith("weights ", start):
        return "has other weights, or other adapters loaded into it"
    return f"was `{before[start : start + 60]}` and is `{after[start : start + 60]}`"


def _plain(config: Any) -> str:
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    if isinstance(config, dict):
        config = {str(key): value for key, value in config.items() if not str(key).startswith("_")}
    return json.dumps(config, sort_keys=True, default=lambda value: f"<{class_key(type(value))}>")


def weights_digest(module: torch.nn.Module, anew: bool = False) -> str:
    """A digest of all parameters and buffers.

    It is computed once, and again when the checksum of one of them has changed: for these all elements are read, as
    one call of the model does. No run changes or moves it meanwhile; where it lies makes no difference.

    Args:
        module: the module.
        anew: whether it is computed in any case.
    """
    with unchanged(module):
        return _weights_digest(module, anew)


def _weights_digest(module: torch.nn.Module, anew: bool) -> str:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    stamp = [(name, str(tensor.dtype), tensor.shape, _changes_with(tensor)) for name, tensor in tensors]
    with _lock:
        known = _digests.get(module)
    if known is not None and known[0] == stamp and not anew:
        return known[1]
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if not tensor.is_meta:
            digest.update(tensor_bytes(tensor).data)
    with _lock:
        _digests[module] = (stamp, digest.hexdigest()[:32])
    return digest.hexdigest()[:32]


def _changes_with(tensor: torch.Tensor) -> Any:
    """What changes when a tensor does: its version, and, as writes through `.data` count none, the sums of it."""
    version = None if tensor.is_inference() else tensor._version
    return version if tensor.is_meta else (version, checksum(tensor))
