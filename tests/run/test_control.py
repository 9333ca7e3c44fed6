"""What steers a run from outside."""

from __future__ import annotations

from loopwright.run.control import Control
from tests.run.blocks import in_threads


class HeldUp:
    """A presence whose halting takes until somebody else has steered the run."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def halt(self) -> None:
        in_threads(self._control.go_on)

    def go_on(self) -> None:
        pass


def test_a_run_can_be_steered_while_it_is_about_to_halt() -> None:
    control = Control()
    control.presence = HeldUp(control)  # type: ignore[assignment]
    control.pause()
    control.meet()
    assert not control.is_paused
