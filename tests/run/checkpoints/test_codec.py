"""Values as JSON and tensors, and back: the same values, the same objects, nothing but data."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections import OrderedDict, namedtuple
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.configuration_utils import FrozenDict
from diffusers.guiders.adaptive_projected_guidance import AdaptiveProjectedGuidance, MomentumBuffer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from loopwright.errors import CheckpointDamagedError, UnsavableValueError
from loopwright.run.checkpoints.comparison import same
from loopwright.run.checkpoints.decoder import Decoder
from loopwright.run.checkpoints.encoder import Encoder, savable_classes


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Side(enum.Flag):
    LEFT = 1
    RIGHT = 2


class Name(enum.IntFlag):
    FIRST = 1
    LAST = 4


@dataclasses.dataclass(frozen=True)
class Box:
    left: int
    inside: Any = None


@dataclasses.dataclass(slots=True)
class Slotted:
    name: str
    values: list[int]


Pair = namedtuple("Pair", "first second")
CLASSES = savable_classes([Colour, Side, Name, Box, Slotted, Pair])
COMPONENTS = {"scheduler": object()}


def through_a_file(value: Any, name: str = "value") -> Any:
    encoder = Encoder(COMPONENTS, CLASSES)
    encoded = encoder.encode(value, name)
    encoder.join()
    written = json.loads(json.dumps(encoded, allow_nan=False))
    stored = {
        key: torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        for key, tensor in encoder.tensors.items()
    }
    return Decoder(stored.__getitem__, COMPONENTS.__getitem__, CLASSES, {}).decode(written)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.binary(),
    st.sampled_from([*Colour, Side.LEFT, Side.LEFT | Side.RIGHT, Side(0), Name.FIRST | Name.LAST, Name(2)]),
    st.sampled_from([Path, PurePosixPath, PureWindowsPath]).flatmap(
        lambda cls: st.builds(cls, st.sampled_from(["a", "a/b.png", "/", "a\\b", "C:/x"]))
    ),
    st.builds(range, st.integers(-9, 9), st.integers(-9, 9)),
    st.builds(slice, st.none() | st.integers(), st.none() | st.integers()),
    st.sampled_from([torch.bfloat16, torch.float8_e4m3fn, torch.device("cpu"), torch.Size([2, 3])]),
    st.sampled_from([np.float32(1.5), np.int64(3), np.bool_(True), np.float64("nan"), np.array(3), np.array(1.5)]),
    st.builds(np.str_, st.text()),
    st.builds(np.bytes_, st.binary()),
    st.sampled_from([slice(np.int64(1), None), slice(1.5, float("nan"), (2, 3)), slice(None, Box(1))]),
)
HASHABLE = st.one_of(st.booleans(), st.integers(), st.text(), st.binary(), st.sampled_from(Colour))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.lists(inner).map(lambda items: Box(1, items)),
        st.builds(Pair, inner, inner),
        st.dictionaries(HASHABLE, inner),
        st.dictionaries(st.text(), inner).map(OrderedDict),
        st.sets(HASHABLE),
        st.frozensets(HASHABLE),
    ),
    max_leaves=20,
)


@given(VALUES)
def test_any_nesting_of_plain_values_comes_back(value: Any) -> None:
    found = through_a_file(value)
    assert type(found) is type(value)
    assert same(found, value)
    assert repr(found) == repr(value) or isinstance(value, set | frozenset | list | tuple | dict | Box)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1])
def test_floats_come_back_bit_for_bit(value: float) -> None:
    assert repr(through_a_file(value)) == repr(value)


def test_a_list_that_holds_itself_comes_back() -> None:
    value: list[Any] = [1]
    value.append(value)
    found = through_a_file(value)
    assert found[1] is found


def test_what_is_one_object_stays_one() -> None:
    shared, generator, tensor = [1], torch.Generator().manual_seed(5), torch.ones(2)
    found = through_a_file({"a": (shared, generator, tensor), "b": [shared, generator, tensor], "c": [1]})
    assert found["a"][0] is found["b"][0]
    assert found["a"][1] is found["b"][1]
    assert found["a"][2] is found["b"][2]
    assert found["c"] is not found["b"][0]


def test_a_component_is_written_as_its_name() -> None:
    assert through_a_file([COMPONENTS["scheduler"]])[0] is COMPONENTS["scheduler"]


def test_a_generator_goes_on_where_it_was() -> None:
    generator = torch.Generator().manual_seed(3)
    torch.rand(7, generator=generator)
    found = through_a_file(generator)
    assert torch.equal(torch.rand(5, generator=found), torch.rand(5, generator=generator))


# Tensors

TENSORS = {
    "bfloat16": torch.randn(3).bfloat16(),
    "float16": torch.randn(3).half(),
    "float64": torch.randn(3).double(),
    "float8": torch.randn(3).to(torch.float8_e5m2),
    "nan with bits": torch.tensor([0x7FC00001, 0x7F800000], dtype=torch.int32).view(torch.float32),
    "bool": torch.tensor([True, False]),
    "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
    "complex64": torch.randn(3, dtype=torch.complex64),
    "complex128": torch.randn(3, dtype=torch.complex128),
    "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
    "negated": torch.randn(3, dtype=torch.complex64).conj().imag,
    "0-d": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "transposed": torch.randn(3, 4).t(),
    "expanded": torch.randn(1, 4).expand(3, 4),
    "one expanded": torch.tensor(2.5).expand(1),
    "strided": torch.randn(10)[::3],
    "overlapping": torch.randn(9).as_strided((3, 3), (2, 2)),
    "parameter": torch.nn.Parameter(torch.randn(2)),
    "with a gradient": torch.randn(2, requires_grad=True),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_come_back_with_dtype_and_elements(name: str) -> None:
    tensor = TENSORS[name]
    found = through_a_file(tensor)
    assert type(found) is type(tensor)
    assert same(found, tensor)
    assert found.requires_grad == tensor.requires_grad


@pytest.mark.parametrize("name", ["channels last", "transposed", "complex64", "0-d", "empty"])
def test_strides_of_tensors_without_gaps_are_kept(name: str) -> None:
    assert through_a_file(TENSORS[name]).stride() == TENSORS[name].stride()


@pytest.mark.parametrize("name", ["expanded", "strided", "overlapping"])
def test_tensors_with_gaps_or_shared_elements_come_back_contiguous(name: str) -> None:
    assert through_a_file(TENSORS[name]).is_contiguous()


def shared_tensors() -> dict[str, list[Any]]:
    """Tensors that share memory, by how they do."""
    base, pixels = torch.randn(6, 8), torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    return {
        "a part, before the whole": [base[2], base],
        "a part, after the whole": [base, base[:, 3:5]],
        "an element": [base, base[1, 1]],
        "parts that overlap": [base[1:4], base[3:]],
        "in a chain": [base[0:3], base[4:], base[2:5]],
        "transposed": [base, base.t()],
        "strided": [base.view(-1)[1::3], base],
        "expanded": [base[0], base[0].expand(4, 8)],
        "channels last": [pixels, pixels[:, 0]],
        "another dtype": [base, base.view(torch.int32), base.view(torch.uint8)[:, 3:9]],
        "detached": [base, base.detach()],
        "a parameter": [torch.nn.Parameter(base), base],
        "complex": [torch.view_as_complex(base.view(6, 4, 2)), base],
    }


@pytest.mark.parametrize("way", shared_tensors())
def test_tensors_that_share_memory_share_it_again(way: str) -> None:
    tensors = shared_tensors()[way]
    found = through_a_file(tensors)
    for one, other in zip(found, tensors, strict=True):
        assert type(one) is type(other)
        assert same(one, other)
        assert (one.stride(), one.requires_grad) == (other.stride(), other.requires_grad)
    for first in range(len(tensors)):
        for both in (found, tensors):
            both[first].data[(0,) * both[first].dim()] += 1
        assert all(map(same, found, tensors))


def test_parts_that_do_not_touch_are_written_without_what_is_between_them() -> None:
    base = torch.randn(3, 10_000)
    encoder = Encoder({}, {})
    encoder.encode([base[0], base[2]], "value")
    encoder.join()
    assert sum(tensor.nbytes for tensor in encoder.tensors.values()) == 80_000


def test_what_is_shared_is_written_once() -> None:
    base = torch.randn(3, 10_000)
    encoder = Encoder({}, {})
    encoder.encode([base[1], base, base[0:2], base.t()], "value")
    encoder.join()
    assert sum(tensor.nbytes for tensor in encoder.tensors.values()) == 120_000


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(2).to_sparse(), "is a tensor of dtype torch.float32 and layout torch.sparse_coo on cpu"),
        (torch.zeros(2, device="meta"), "is a tensor of dtype torch.float32 and layout torch.strided on meta"),
    ],
    ids=["sparse", "meta"],
)
def test_other_tensors_cannot_be_saved(tensor: Any, message: str) -> None:
    with pytest.raises(UnsavableValueError) as raised:
        through_a_file({"inside": [tensor]})
    assert str(raised.value).startswith(f"`value['inside'][0]` {message}")


# Arrays


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.0),
        np.array([1, 2], ">i4"),
        np.zeros((0, 3)),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10)[::3],
        np.array(["a", "bc"]),
        np.array([1 + 2j]),
        np.array([True]),
    ],
    ids=["0-d", "big-endian", "empty", "columns", "strided", "text", "complex", "bool"],
)
def test_arrays_come_back_with_dtype_shape_and_order(array: Any) -> None:
    found = through_a_file(array)
    assert type(found) is np.ndarray
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)
    assert found.flags.f_contiguous == array.flags.f_contiguous or not array.flags.c_contiguous
    assert found.flags.writeable


def test_a_numpy_scalar_is_no_array_of_no_dimensions() -> None:
    scalar, array = through_a_file([np.float32(1.5), np.array(1.5, np.float32)])
    assert type(scalar) is np.float32
    assert type(array) is np.ndarray


def test_arrays_of_objects_are_refused_with_their_path() -> None:
    with pytest.raises(UnsavableValueError) as raised:
        through_a_file([Box(1, {"deep": (0, np.array([object()]))})])
    assert str(raised.value) == ("`value[0].inside['deep'][1]` is a numpy array of dtype object, which cannot be saved")


# Pictures


def pictures() -> dict[str, Any]:
    colours = Image.new("RGB", (5, 3))
    colours.putdata([(x * 9, 255 - x * 7, x) for x in range(15)])
    found = {mode: colours.convert(mode) for mode in ("RGB", "RGBA", "L", "1", "P", "LA", "CMYK", "F", "I", "HSV")}
    found["P with a transparent colour"] = colours.quantize(4)
    found["P with a transparent colour"].info["transparency"] = 1
    found["P with a palette of RGBA"] = colours.convert("RGBA").quantize(4)
    found["I;16"] = Image.new("I;16", (2, 2), 40000)
    found["empty"] = Image.new("RGB", (0, 4))
    return found


@pytest.mark.parametrize("name", pictures())
def test_pictures_come_back(name: str) -> None:
    picture = pictures()[name]
    found = through_a_file(picture)
    assert (found.mode, found.size, found.tobytes()) == (picture.mode, picture.size, picture.tobytes())
    if picture.mode == "P":
        assert found.convert("RGBA").tobytes() == picture.convert("RGBA").tobytes()


# Objects


def test_objects_of_named_classes_come_back_as_their_attributes() -> None:
    found = through_a_file([Box(1, Colour.BLUE), Slotted("a", [1, 2]), Pair(1, (2,))])
    assert found == [Box(1, Colour.BLUE), Slotted("a", [1, 2]), Pair(1, (2,))]
    assert type(found[2]) is Pair


def test_the_guider_of_a_call_comes_back_with_its_momentum() -> None:
    guider = AdaptiveProjectedGuidance(guidance_scale=4.0)
    guider.momentum_buffer = MomentumBuffer(-0.5)
    guider.momentum_buffer.update(torch.ones(2))
    found = through_a_file(guider)
    assert found.config == guider.config
    assert found.config.guidance_scale == 4.0
    assert type(found.config) is FrozenDict
    assert torch.equal(found.momentum_buffer.running_average, guider.momentum_buffer.running_average)


def test_the_cache_of_a_model_comes_back_with_its_tensors() -> None:
    from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21KVCache

    cache = QwenImage21KVCache(2)
    cache.get_layer(1).store(torch.ones(2), torch.zeros(2))
    encoder = Encoder({}, classes := savable_classes([]))
    found = Decoder(encoder.tensors.__getitem__, {}.__getitem__, classes, {}).decode(encoder.encode(cache, "cache"))
    assert found.get_layer(0).k is None
    assert [tensor.tolist() for tensor in found.get_layer(1).get()] == [[1, 1], [0, 0]]


def test_a_scheduler_that_a_block_made_comes_back_with_its_history() -> None:
    def step(scheduler: Any, t: Any, sample: torch.Tensor) -> torch.Tensor:
        stepped: torch.Tensor = scheduler.step(sample * 0.5, t, sample).prev_sample
        return stepped

    scheduler = DPMSolverMultistepScheduler()
    scheduler.set_timesteps(5)
    sample = step(scheduler, scheduler.timesteps[0], torch.ones(1, 2))
    found = through_a_file(scheduler)
    for t in scheduler.timesteps[1:4]:
        assert torch.equal(step(found, t, sample), step(scheduler, t, sample))


@pytest.mark.parametrize("seed", [5, [5, 6]])
@pytest.mark.parametrize("turned", [False, True])
def test_a_brownian_noise_sampler_gives_the_same_noise(seed: Any, turned: bool) -> None:
    pytest.importorskip("torchsde")
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    ends = (10.0, 0.1) if turned else (0.1, 10.0)
    sampler = BrownianTreeNoiseSampler(torch.zeros(2, 3), *ends, seed)
    sampler(5.0, 4.0)
    found = through_a_file(sampler)
    for interval in [(4.0, 3.0), (3.0, 0.5), (5.0, 4.0), (9.0, 1.0)]:
        assert torch.equal(found(*interval), sampler(*interval))


def test_a_noise_sampler_on_another_scale_cannot_be_saved() -> None:
    pytest.importorskip("torchsde")
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    with pytest.raises(UnsavableValueError, match="with a `transform`"):
        through_a_file(BrownianTreeNoiseSampler(torch.zeros(2), 0.1, 10.0, 5, transform=lambda x: x.log()))


class Unknown:
    pass


class Text(str):
    pass


@pytest.mark.parametrize("value", [Unknown(), Text("a"), lambda: None, Unknown, open, object(), torch.nn.Linear(1, 1)])
def test_a_value_of_another_class_is_refused_with_its_path_and_class(value: Any) -> None:
    with pytest.raises(UnsavableValueError) as raised:
        through_a_file({"notes": [value]})
    kind = type(value)
    assert str(raised.value) == (
        f"`value['notes'][0]` is a {kind.__module__}.{kind.__qualname__}, which cannot be saved; keep it out of the "
        f"state, or, if it is its attributes and no more, name its class in `Checkpoint(classes=[...])`"
    )


def test_a_named_class_that_is_more_than_its_attributes_is_refused() -> None:
    class Listed(list):  # type: ignore[type-arg]
        pass

    encoder = Encoder({}, savable_classes([Listed]))
    with pytest.raises(UnsavableValueError, match="which is a list beside its attributes and cannot be saved"):
        encoder.encode(Listed([1]), "value")


def test_a_tuple_that_holds_itself_is_refused() -> None:
    value: tuple[Any, ...] = ([],)
    value[0].append(value)
    with pytest.raises(UnsavableValueError, match="is a tuple that holds itself"):
        through_a_file(value)


def test_a_class_that_nobody_names_is_not_looked_up() -> None:
    written = {"$": "object", "number": 0, "class": "subprocess:Popen", "attributes": []}
    with pytest.raises(CheckpointDamagedError) as raised:
        Decoder({}.__getitem__, {}.__getitem__, CLASSES, {}).decode(written)
    assert str(raised.value) == (
        "the checkpoint holds an object of class `subprocess:Popen`, which neither this pipeline nor "
        "`Checkpoint(classes=[...])` names"
    )


@pytest.mark.parametrize(
    "written",
    [
        {"$": "no such kind", "number": 0},
        {"$": "array", "number": 0, "dtype": "O", "shape": [1], "order": "C", "data": {"key": "t"}},
        {"$": "dtype", "number": 0, "name": "os"},
        {"$": "tensor", "number": 0, "key": "absent"},
        {"$": "seen", "number": 9},
        {"$": "list"},
    ],
)
def test_what_no_encoder_writes_is_damaged(written: Any) -> None:
    stored = {"t": torch.zeros(8, dtype=torch.uint8)}
    with pytest.raises(CheckpointDamagedError):
        Decoder(stored.__getitem__, {}.__getitem__, CLASSES, {}).decode(written)
