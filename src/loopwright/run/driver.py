"""The driver of one run: it knows where in the tree the run is, and what happens between two iterations."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from loopwright.blocks.composite import Step, run_whole
from loopwright.blocks.loop import LoopSequentialPipelineBlocks
from loopwright.errors import CheckpointMismatchError, RunStateError
from loopwright.run.trace import Trace
from loopwright.state import BlockState, PipelineState, loop_record

if TYPE_CHECKING:
    from loopwright.run.caching import RunCache
    from loopwright.run.checkpoints.history import Entry, History
    from loopwright.run.checkpoints.replay import Replay
    from loopwright.run.exclusive import Exclusive
    from loopwright.run.presence import Presence

__all__ = ["Frame", "LoopDriver"]

# A wrapper that goes on calling `loop_step` after its loop was ended waits for a result that will not come.
MOST_SKIPPED = 1000


class Frame:
    """A loop that is running.

    Attributes:
        loop: the loop.
        path: its path in the tree; for a loop that a block holds and calls by itself, the path of that block and the
            name of the loop's class.
        is_held: whether it is such a loop.
        index: the index of the current iteration: how often `loop_step` was called before.
        total: the number of iterations, None where it is not known.
        variables: the variables of the current iteration.
        memory: what models that cache keep for it.
        visit: how often a loop of this path had run before, in the current iteration of the loop around it.
        depth: how many names of blocks lead to it.
        outer_depth: how many of these lead to the loop around it.
        trace_depth: how many calls and iterations the trace has in progress between its iterations.
        ended: whether it is to have no more iterations.
        entry: what it found when it began, for a run that is saved.
        history: its small values after each iteration, likewise.
    """

    __slots__ = (
        "_state",
        "depth",
        "ended",
        "entry",
        "history",
        "index",
        "inner_visits",
        "is_held",
        "loop",
        "memory",
        "outer_depth",
        "path",
        "skipped",
        "total",
        "trace_depth",
        "variables",
        "visit",
    )

    def __init__(self, loop: LoopSequentialPipelineBlocks, path: str, is_held: bool, state: Any, visit: int) -> None:
        self.loop, self.path, self.is_held, self.visit = loop, path, is_held, visit
        # weakly: once its wrapper has returned nobody holds the state, which tells that a held loop is over
        self._state = weakref.ref(state)
        self.depth = self.outer_depth = self.trace_depth = 0
        self.total: int | None = None
        self.index = -1
        self.variables: dict[str, Any] = {}
        self.ended = False
        self.entry: Entry | None = None
        self.history: History | None = None
        self.skipped = 0
        self.inner_visits: dict[str, int] = {}
        self.memory: dict[Any, Any] = {}

    @property
    def state(self) -> BlockState:
        """The `BlockState` that the blocks of the loop share."""
        state: BlockState | None = self._state()
        assert state is not None
        return state

    @state.setter
    def state(self, state: BlockState) -> None:
        self._state = weakref.ref(state)

    def belongs_to(self, loop: LoopSequentialPipelineBlocks, state: Any) -> bool:
        """Whether it is the frame of this call of a loop."""
        return self.loop is loop and self._state() is state

    @property
    def is_over(self) -> bool:
        """Whether the call of the loop has returned."""
        return self._state() is None

    @property
    def values(self) -> dict[str, Any]:
        """The values that the blocks of the loop share, by name."""
        state: Any = self.state
        return state.values if isinstance(state, PipelineState) else state.__dict__

    @property
    def groups(self) -> dict[str, list[str]]:
        """The names in each group of the values."""
        state: Any = self.state
        return state.kwargs_mapping if isinstance(state, PipelineState) else loop_record(state).groups


class EndedLoop(BaseException):
    """Leaves a wrapper that does not notice that its loop was ended."""

    def __init__(self, frame: Frame) -> None:
        super().__init__(frame.path)
        self.loop, self.state = frame.loop, frame.state


class LoopDriver:
    """Follows a run through its tree of blocks, and reports each iteration of each loop when its blocks have run.

    Args:
        state: the state of the run.
        boundary: called after each iteration, with the frames of the loops around that point, outermost first.
        progress: False hides the progress bars of loops, True shows them, None leaves it to the blocks.
        exclusive: what the run has to have for itself, None if it shares everything.
        trace: is told of all blocks and iterations; None if nobody wants to know.
        cache: has results of earlier runs; None if the pipeline keeps none.
        presence: is told in which loop the run is; None if nobody waits for it.

    Attributes:
        state: the state of the run.
        frames: the loops that are running, outermost first.
        iterations: how many iterations, of any loop, have ended.
        mark: stands for the point between two iterations at which the run is, None while it is at none.
        replay: leads the run to where it was saved; None once it is there, and for a run that begins.
        remember: makes of the values that a loop finds what is kept of them while it runs; None if nothing is.
        ended_early: whether a loop was told to end.
    """

    def __init__(
        self,
        state: PipelineState,
        boundary: Callable[[list[Frame]], None],
        progress: bool | None = None,
        exclusive: Exclusive | None = None,
        trace: Trace | None = None,
        cache: RunCache | None = None,
        presence: Presence | None = None,
    ) -> None:
        self.state = state
        self.replay: Replay | None = None
        self.remember: Callable[[dict[str, Any]], Entry] | None = None
        self.frames: list[Frame] = []
        self.iterations = 0
        self.mark: object | None = None
        self.ended_early = False
        self._boundary = boundary
        self._progress = progress
        self._exclusive = exclusive
        self._trace = trace or Trace()
        self._cache = cache
        self._presence = presence
        self._root: Any = None
        self._blocks: list[tuple[str, Any]] = []
        self._visits: dict[str, int] = {}
        # the loops whose calls are under way, with what is kept of the values that they found
        self._entered: list[tuple[Any, Entry | None]] = []
        # the loop that made the last progress bar, and how many iterations the bar expects
        self._expected: tuple[Any, int | None] | None = None

    @property
    def block_names(self) -> list[str]:
        """The names of the blocks that are running, outermost first."""
        return [name for name, _ in self._blocks]

    @property
    def blocks(self) -> list[Any]:
        """The blocks that are running, outermost first, without the pipeline's own."""
        return [block for _, block in self._blocks]

    def run(self, blocks: Any, components: Any) -> PipelineState:
        """Run the blocks of a pipeline."""
        self._root = blocks
        try:
            with self._having(blocks):
                state = self._run_root(blocks, components)
        except EndedLoop as ended:
            if ended.loop is not blocks:
                raise
            blocks.set_block_state(self.state, ended.state)
            state = self.state
        if self.replay is not None:
            raise CheckpointMismatchError(
                f"the run ended before it came to where it was saved, in loop `{self.replay.path(-1)}` after iteration "
                f"{self.replay.index(-1)}: its iterations depend on something that is not saved"
            )
        return state

    def _run_root(self, blocks: Any, components: Any) -> PipelineState:
        def call(components: Any, state: PipelineState) -> tuple[Any, PipelineState]:
            self._enter(blocks, state)
            return components, run_whole(blocks, components, state)

        state: PipelineState
        _, state = self._cached("", blocks, call)(components, self.state)
        return state

    def walk(self, steps: Iterable[Step]) -> Iterator[Step]:
        """The steps of a composite, one after the other, keeping account of where the run is."""
        while self.frames and self.frames[-1].is_over:
            self._leave_held(self.frames.pop())
        depth, loops, trace_depth = len(self._blocks), len(self.frames), self._trace.depth
        for step in steps:
            if self._is_done(depth, step):
                continue
            # what a block left behind that caught an exception from below
            del self._blocks[depth:], self.frames[loops:]
            block = step.call.__self__  # type: ignore[attr-defined]
            self._blocks.append((step.name, block))
            self._tell_loop()
            if isinstance(block, LoopSequentialPipelineBlocks):
                step = step._replace(call=self._unwinding(block))
            elif self._exclusive is not None and not block.sub_blocks:
                step = step._replace(call=self._exclusively(block))
            if self._cache is not None:
                step = step._replace(call=self._cached(".".join(self.block_names), block, step.call))
            self._trace.leave(trace_depth)
            self._trace.enter(step.name, self._blocks)
            yield step
            self._trace.leave(trace_depth)
        del self._blocks[depth:], self.frames[loops:]

    def _is_done(self, depth: int, step: Step) -> bool:
        """Whether a block had been passed when the run was saved."""
        if self.replay is None or not self.replay.is_done(depth, step.name):
            return False
        # blocks that a wrapper holds and calls by itself, before its loop begins, are made to run again
        holders = [self._blocks[-1][1] if self._blocks else self._root]
        holders += [frame.loop for frame in self.frames[-1:] if frame.is_held]
        block = step.call.__self__  # type: ignore[attr-defined]
        return any(holder.sub_blocks.get(step.name) is block for holder in holders)

    def chosen(self, block: Any, name: str | None) -> str | None:
        """The name of the block that a conditional chooses: the one that was running when the run was saved.

        Args:
            block: the conditional.
            name: what it chooses now; what it decides by may have changed since it first did.
        """
        saved = None if self.replay is None else self.replay.chosen(len(self._blocks))
        return saved if saved is not None and saved in block.sub_blocks else name

    def _cached(self, path: str, block: Any, call: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
        """The call of a leaf or a loop, whose result an earlier run may have left."""
        is_unit = not block.sub_blocks or isinstance(block, LoopSequentialPipelineBlocks)
        return call if self._cache is None or not is_unit else self._cache.through(self, path, block, call)

    def _having(self, block: Any) -> AbstractContextManager[None]:
        """What a block has to have for itself while it works."""
        return nullcontext() if self._exclusive is None else self._exclusive.block(block)

    def _exclusively(self, block: Any) -> Callable[..., tuple[Any, Any]]:
        def call(components: Any, state: Any, **variables: Any) -> tuple[Any, Any]:
            with self._having(block):
                return block(components, state, **variables)  # type: ignore[no-any-return]

        return call

    def _unwinding(self, loop: LoopSequentialPipelineBlocks) -> Callable[..., tuple[Any, Any]]:
        """The call of a loop, which ends as usual if the wrapper has to be left."""

        def call(components: Any, state: Any, **variables: Any) -> tuple[Any, Any]:
            self._enter(loop, state)
            try:
                with self._having(loop):
                    return loop(components, state, **variables)
            except EndedLoop as ended:
                if ended.loop is not loop:
                    raise
                loop.set_block_state(state, ended.state)
                return components, state
            finally:
                self._entered.pop()
                if self._presence is not None:
                    outer = [frame for frame in self.frames if not frame.is_over and frame.loop is not loop]
                    self._presence.in_loop(outer[-1].loop if outer else None)

        return call

    def _enter(self, loop: Any, state: Any) -> None:
        """A loop is about to be called."""
        values = state.values if isinstance(state, PipelineState) else state.__dict__
        self._entered.append((loop, None if self.remember is None else self.remember(values)))

    def _tell_loop(self) -> None:
        if self._presence is not None:
            self._presence.in_loop(self.frames[-1].loop if self.frames else None)

    def iterate(
        self, loop: LoopSequentialPipelineBlocks, components: Any, state: Any, variables: dict[str, Any]
    ) -> tuple[Any, Any]:
        """Run one iteration, unless the loop was ended, and report it."""
        frame = self._frame(loop, components, state)
        if frame.ended:
            self._skip(frame)
            return components, state
        self._tell_loop()
        frame.index += 1
        frame.variables = variables
        frame.inner_visits.clear()
        if self.replay is not None and self._wind_forward(self.replay, frame):
            return components, frame.state
        depth = len(self._blocks)
        self._trace.leave(frame.trace_depth)
        self._trace.enter_iteration(frame.index)
        with nullcontext() if self._exclusive is None else self._exclusive.iteration(loop, frame.memory):
            components, state = loop.run_iteration(components, state, variables)
        self._trace.leave(frame.trace_depth)
        frame.state = state
        del self._blocks[depth:], self.frames[self.frames.index(frame) + 1 :]
        if self.replay is not None:
            # in a loop that is only run again; or the loop inside ended before it came to where it was saved
            return components, frame.state
        self.iterations += 1
        self.mark = object()
        try:
            with nullcontext() if self._exclusive is None else self._exclusive.boundary():
                self._boundary(self.frames)
        finally:
            self.mark = None
            self.ended_early = self.ended_early or any(frame.ended for frame in self.frames)
        return components, frame.state

    def _skip(self, frame: Frame) -> None:
        frame.skipped += 1
        if frame.skipped <= MOST_SKIPPED:
            return
        if frame.is_held:
            # what its caller would do with the outputs is not known
            raise RunStateError(
                f"loop `{frame.path}` was told to end and does not: it called `loop_step` {MOST_SKIPPED} times more, "
                f"which did nothing. Make it a block of the pipeline, or let it have an end of its own"
            )
        raise EndedLoop(frame)

    def _wind_forward(self, replay: Replay, frame: Frame) -> bool:
        """Whether the iteration is done already, or is the one after which the run was saved."""
        depth = self.frames.index(frame)
        if depth >= replay.depth or frame.path != replay.path(depth):
            return False
        last = frame.index == replay.index(depth)
        if frame.index > replay.index(depth):
            return False
        if last:
            replay.check_variables(depth, frame.path, frame.index, frame.variables)
        if last or frame.index == 0:
            replay.restore(self.frames, self.state)
        else:
            replay.rewind(frame, depth)
        record = loop_record(frame.state)
        record.variables = {**(record.outer_variables or {}), **frame.variables}
        if last and depth == replay.depth - 1:
            self.iterations = replay.iterations
            self.replay = None
            return True
        return not last

    def has_ended(self, loop: LoopSequentialPipelineBlocks, state: BlockState) -> bool:
        """Whether a loop is to have no more iterations."""
        return any(frame.ended for frame in self.frames if frame.belongs_to(loop, state))

    def bar_config(
        self, loop: LoopSequentialPipelineBlocks, config: dict[str, Any], total: int | None
    ) -> dict[str, Any]:
        """The arguments of a progress bar of a loop, which expects so many iterations."""
        frame = next((frame for frame in reversed(self.frames) if frame.loop is loop and not frame.is_over), None)
        if frame is None:
            self._expected = loop, total
        elif frame.total is not None and frame.index + 1 == frame.total:
            # a wrapper that goes through one list and then another
            frame.total = None if total is None else frame.total + total
        return config if self._progress is None else {**config, "disable": not self._progress}

    def _frame(self, loop: LoopSequentialPipelineBlocks, components: Any, state: Any) -> Frame:
        """The frame of a loop, made at its first iteration; frames of loops inside it have ended."""
        if not isinstance(state, (BlockState, PipelineState)):
            raise loop._wrong_state(state)
        for position in range(len(self.frames) - 1, -1, -1):
            frame = self.frames[position]
            if frame.is_over:
                del self.frames[position:]
                self._leave_held(frame)
            elif frame.belongs_to(loop, state):
                del self.frames[position + 1 :]
                return frame
        path = ".".join(name for name, _ in self._blocks)
        is_held = bool(self._blocks) and self._blocks[-1][1] is not loop
        if is_held:
            path = f"{path}.{type(loop).__name__}"
        visits = self.frames[-1].inner_visits if self.frames else self._visits
        frame = Frame(loop, path, is_held, state, visits.get(path, 0))
        visits[path] = frame.visit + 1
        if not is_held and self._entered and self._entered[-1][0] is loop:
            frame.entry = self._entered[-1][1]
        frame.depth = len(self._blocks)
        frame.outer_depth = self.frames[-1].depth if self.frames else 0
        frame.total = loop.loop_total(components, frame.state)
        if frame.total is None and self._expected is not None and self._expected[0] is loop:
            frame.total, self._expected = self._expected[1], None
        if is_held:
            self._trace.enter_held(path)
        frame.trace_depth = self._trace.depth
        self.frames.append(frame)
        return frame

    def _leave_held(self, frame: Frame) -> None:
        """A loop is over. If a block holds it, the trace learns of it here, otherwise from `walk`."""
        if frame.is_held:
            self._trace.leave(frame.trace_depth - 1)
