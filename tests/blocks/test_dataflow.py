"""Who reads and writes each value, and what a loop carries, as the notes and warnings of `check` tell it."""

from __future__ import annotations

from typing import Any

from loopwright import SequentialPipelineBlocks, check
from tests.blocks.arithmetic import AddOne, Copy, DoubleIfAsked, DoubleOrAddOne, Repeat, RepeatRows


class MaybeWriteB(DoubleIfAsked):
    """`a` to `b`, if `twice` is given."""

    block_classes = [Copy("a", "b")]


class WriteBOneWayOrAnother(DoubleOrAddOne):
    """`a` to `b`, or `c` to `b`."""

    block_classes = [Copy("a", "b"), Copy("c", "b")]


def noted(blocks: Any, code: str) -> list[tuple[str, str]]:
    return [(finding.path, finding.message) for finding in check(blocks) if finding.code == code]


def carried(**blocks: Any) -> list[str]:
    """What a loop of these blocks carries."""
    notes = noted(Repeat.from_blocks_dict(blocks), "loop-carried")
    return [message for _, message in notes]


def test_a_value_that_is_read_before_it_is_written_is_carried() -> None:
    assert carried(reads=Copy("b", "c"), writes=Copy("a", "b")) == [
        "`b` goes from one iteration to the next: `writes` writes it, `reads` reads it"
    ]


def test_a_value_that_is_written_before_it_is_read_is_not_carried() -> None:
    assert carried(writes=Copy("a", "b"), reads=Copy("b", "c")) == []


def test_a_value_that_nobody_writes_is_not_carried() -> None:
    assert carried(reads=Copy("a", "b"), again=Copy("a", "c")) == []


def test_a_value_that_is_written_first_by_a_block_that_may_be_skipped_is_carried() -> None:
    assert carried(maybe=MaybeWriteB, reads=Copy("b", "c"), writes=Copy("a", "b")) == [
        "`b` goes from one iteration to the next: `maybe.double` and `writes` write it, `reads` reads it"
    ]


def test_a_value_that_one_branch_writes_and_another_reads_is_carried() -> None:
    class WriteOrRead(DoubleOrAddOne):
        block_classes = [Copy("a", "b"), Copy("b", "c")]

    assert carried(choice=WriteOrRead) == [
        "`b` goes from one iteration to the next: `choice.double` writes it, `choice.add_one` reads it"
    ]


def test_a_value_that_every_branch_writes_before_it_is_read_is_not_carried() -> None:
    assert carried(choice=WriteBOneWayOrAnother, reads=Copy("b", "d")) == []


def test_a_value_that_goes_through_an_inner_loop_is_carried_by_both() -> None:
    tree = RepeatRows.from_blocks_dict({"inner": Repeat.from_blocks_dict({"add": AddOne})})
    assert noted(tree, "loop-carried") == [
        ("", "`x` goes from one iteration to the next: `inner` writes it, `inner` reads it"),
        ("inner", "`x` goes from one iteration to the next: `add` writes it, `add` reads it"),
    ]


def test_the_blocks_of_a_sequence_in_a_loop_are_named_by_their_paths() -> None:
    inner = SequentialPipelineBlocks.from_blocks_dict({"reads": Copy("b", "c"), "writes": Copy("a", "b")})
    assert carried(inner=inner) == [
        "`b` goes from one iteration to the next: `inner.writes` writes it, `inner.reads` reads it"
    ]


def test_an_output_that_nobody_reads_is_noted_unless_the_last_block_makes_it() -> None:
    tree = SequentialPipelineBlocks.from_blocks_dict({"first": Copy("a", "b"), "last": Copy("c", "d")})
    assert noted(tree, "unread-output") == [("first", "writes `b`, which no block reads")]


def test_a_name_that_is_nearly_one_that_was_written_is_a_warning() -> None:
    tree = SequentialPipelineBlocks.from_blocks_dict(
        {"write": Copy("a", "image_latents"), "read": Copy("image_latent", "b")}
    )
    assert noted(tree, "near-miss") == [
        ("read", "reads `image_latent`, which no block writes, while `write` writes `image_latents`")
    ]


def test_a_name_that_is_nearly_one_that_is_written_later_is_a_warning_in_a_loop_only() -> None:
    blocks = {"read": Copy("image_latent", "b"), "write": Copy("a", "image_latents")}
    assert noted(SequentialPipelineBlocks.from_blocks_dict(blocks), "near-miss") == []
    assert len(noted(Repeat.from_blocks_dict(blocks), "near-miss")) == 1
