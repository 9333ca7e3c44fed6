"""One checkpoint as one file: tensors as safetensors, everything else as JSON in its header.

The name of a file holds the number of the iteration and a digest of all its bytes, so a file that was cut, or in which
a bit has turned, is noticed before any of it is believed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError, TensorSpec, serialize
from safetensors.torch import load

from loopwright.errors import CheckpointDamagedError, CheckpointError, LoopwrightError
from loopwright.run.checkpoints.checksum import checksum
from loopwright.run.checkpoints.comparison import tensor_bytes
from loopwright.run.checkpoints.storage import Storage

__all__ = ["TensorFiles", "checkpoints_in", "iteration_of", "load_tensors", "read_body", "read_file", "reading"]

FORMAT = 2
_NONE = type(None)
# what the JSON of a file is made of: a type, several, a list of one kind, a table with at least these entries, or one
# of any names and one kind
_BODY: dict[str, Any] = {
    "iteration": int,
    "fingerprint": {kind: {...: str} for kind in ("block", "component", "configuration value")},
    "settings": {"every": int, "keep": (int, _NONE), "strict": bool},
    "start": (dict, _NONE),
    "generators": dict,
    "state": {"values": list, "groups": dict},
    "frames": [
        {
            "path": str,
            "names": [str],
            "index": int,
            "ended": bool,
            "variables": list,
            "values": (list, _NONE),
            "groups": (dict, _NONE),
            "iteration": int,
        }
    ],
    "histories": [{"changes": list, "left out": [str]}],
    "entries": [{"changed": list, "new": [str]}],
    "components": dict,
    "rng": list,
    "attributes": list,
    "places": {...: [str]},
}
_NAME = re.compile(r"(\d{8})-([0-9a-f]{32})\.safetensors")


def iteration_of(name: str) -> int | None:
    """The iteration that a file is named after; None for a file that is not a checkpoint."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def checkpoints_in(storage: Storage) -> list[tuple[int, str]]:
    """The checkpoints in a folder: iteration and name of each, the earliest first."""
    found = ((iteration_of(name), name) for name in storage.names())
    return sorted((iteration, name) for iteration, name in found if iteration is not None)


def file_name(iteration: int, data: bytes) -> str:
    return f"{iteration:08d}-{_digest(data)}.safetensors"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def read_file(storage: Storage, name: str) -> bytes:
    """The bytes of a file.

    Raises:
        CheckpointDamagedError: they are not those that were written.
    """
    try:
        data = storage.read(name)
    except FileNotFoundError as error:
        raise CheckpointDamagedError(f"`{name}` in {storage} is gone, and a checkpoint needs it") from error
    except OSError as error:
        raise CheckpointError(f"`{name}` in {storage} cannot be read: {error}") from error
    match = _NAME.fullmatch(name)
    if match is None or _digest(data) != match[2]:
        raise CheckpointDamagedError(f"`{name}` in {storage} is damaged: its bytes are not those that were written")
    return data


def read_body(data: bytes, name: str) -> dict[str, Any]:
    """The JSON of a file.

    Raises:
        CheckpointDamagedError: there is none.
        CheckpointError: it is of a version that this one does not read.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        written = json.loads(data[8 : 8 + length])["__metadata__"]
        body: dict[str, Any] = {}
        for part in (written.get("run", "{}"), written.get("histories", "{}"), written["loopwright"]):
            body |= json.loads(part)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointDamagedError(f"`{name}` is not a checkpoint: {error}") from error
    if body.get("format") != FORMAT:
        raise CheckpointError(f"`{name}` is of format {body.get('format')}; this version reads format {FORMAT}")
    wrong = _wrong(body, _BODY, "its header")
    if not wrong and any(len(place) != 2 for place in body["places"].values()):
        wrong = "`places` in its header are not pairs"
    if not wrong and any((frame["values"] is None) != (frame["groups"] is None) for frame in body["frames"]):
        wrong = "`values` of a loop are without `groups`, or the other way round"
    if not wrong and not len(body["frames"]) == len(body["histories"]) == len(body["entries"]):
        wrong = "its loops have not a history and an entry each"
    if wrong:
        raise CheckpointDamagedError(f"`{name}` is not a checkpoint: {wrong}")
    return body


@contextmanager
def reading(name: str) -> Iterator[None]:
    """While the contents of a file are read: those that no checkpoint has are an error that names the file.

    Raises:
        CheckpointDamagedError: they have another form than a checkpoint's.
    """
    try:
        yield
    except LoopwrightError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, SyntaxError, TypeError, ValueError) as error:
        raise CheckpointDamagedError(
            f"`{name}` is not a checkpoint: {type(error).__name__} ({error}) while a value was read"
        ) from error


def _wrong(value: Any, shape: Any, where: str) -> str:
    """What a value of the JSON lacks, in words; empty if nothing."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{where} is no table"
        if ... in shape:
            shape = dict.fromkeys(value, shape[...])
        inside = [(value[key], part, f"`{key}` in {where}") for key, part in shape.items() if key in value]
        if len(inside) < len(shape):
            return f"{where} has no `{next(key for key in shape if key not in value)}`"
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is no list"
        inside = [(item, shape[0], f"an item of {where}") for item in value]
    else:
        return "" if isinstance(value, shape) else f"{where} is {value!r:.40}"
    return next((wrong for item, part, place in inside if (wrong := _wrong(item, part, place))), "")


class TensorFiles:
    """Writes checkpoints, and in each only the tensors that the one before it neither holds nor refers to.

    Args:
        storage: where they are written.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # where the tensors of the last checkpoint are: file and key, with a tensor that must stay alive until then
        self._written: dict[tuple[Any, ...], tuple[str, str, torch.Tensor | None]] = {}

    def write(
        self, iteration: int, parts: dict[str, str], body: dict[str, Any], tensors: dict[str, torch.Tensor]
    ) -> tuple[str, set[str]]:
        """Write one checkpoint.

        Args:
            iteration: after how many iterations.
            parts: what is written as JSON already: `run`, the same in all checkpoints of the run, and `histories`.
            body: what is in this one.
            tensors: the tensors that both refer to.

        Returns:
            The name of its file, and those of the earlier files that it refers to.
        """
        # a second checkpoint of the same iteration takes the place of the first
        known = {key: place for key, place in self._written.items() if iteration_of(place[0]) != iteration}
        places: dict[str, tuple[str, str]] = {}
        new: dict[str, torch.Tensor] = {}
        found: dict[tuple[Any, ...], tuple[str, str, torch.Tensor | None]] = {}
        for key, tensor in tensors.items():
            identity, alive = _identity(tensor)
            if identity not in found:
                found[identity] = known.get(identity) or ("", key, alive)
            places[key] = found[identity][:2]
            if places[key] == ("", key):
                new[key] = _plain(tensor)
        moved = {key: place for key, place in places.items() if place != ("", key)}
        body = {"format": FORMAT, **body, "places": moved}
        data = _file(new, {**parts, "loopwright": json.dumps(body, allow_nan=False)})
        name = file_name(iteration, data)
        try:
            self._storage.write(name, data)
        except OSError as error:
            raise CheckpointError(
                f"the run cannot be saved to {self._storage}: {error}; what was saved before is still there"
            ) from error
        self._written = {identity: (file or name, key, alive) for identity, (file, key, alive) in found.items()}
        return name, {file for file, _ in places.values() if file}


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """As safetensors takes it: in the memory of the CPU, without gaps, and complex numbers are pairs."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    return (torch.view_as_real(plain) if plain.is_complex() else plain).contiguous()


def _file(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """The bytes of a safetensors file.

    Without what `safetensors.torch.save` does for any tensors, which takes as long as an iteration of a small model.
    """
    specs = {
        key: TensorSpec(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tensor.shape,
            data_ptr=tensor.data_ptr(),
            data_len=tensor.nbytes,
        )
        for key, tensor in tensors.items()
    }
    return bytes(serialize(specs, metadata=metadata))


def _identity(tensor: torch.Tensor) -> tuple[tuple[Any, ...], torch.Tensor | None]:
    """What stays the same while nothing is written to a tensor, and the tensor if it must stay alive for that to hold.

    In the memory of the CPU it is a digest. From elsewhere all elements would have to be brought there first; instead
    they are added up where they are, as writes through `.data` count no version.
    """
    shape = (str(tensor.dtype), tuple(tensor.shape))
    if tensor.device.type == "cpu" or tensor.is_inference():
        return (*shape, hashlib.sha256(tensor_bytes(tensor).data).digest()), None
    where = (tensor.stride(), tensor.storage_offset(), str(tensor.device), tensor.untyped_storage().data_ptr())
    return (*shape, *where, tensor._version, checksum(tensor)), tensor


def load_tensors(data: bytes, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a file.

    Raises:
        CheckpointDamagedError: they cannot be read.
    """
    try:
        return load(data)
    except (SafetensorError, ValueError) as error:
        raise CheckpointDamagedError(f"`{name}` is not a checkpoint: {error}") from error
