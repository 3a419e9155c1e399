"""Where a run stands on its schedule when time ends it and not the number of its steps."""

from dataclasses import dataclass


@dataclass
class Pace:
    """How fast a run with a limit of time goes through its schedule.

    The place on the schedule goes from 0 to 1, never back and never by a jump: straight from where it is to the end of
    the steps or of the time, whichever comes first at the speed so far. It is fitted anew when the run is saved, and
    before the first save after each doubling of the steps. Steps are counted as the schedule counts them: a new pace
    begins where a resume has moved their borders. Between two saves it depends on nothing but the step and
    these numbers, which the checkpoint holds: a killed run that goes on repeats what was lost, bit for bit.
    """

    place: float = 0.0  # at `step`, where it was fitted last
    step: int = 0
    rate: float = 0.0  # of the place, for each step from there on; 0: not fitted yet
    first_step: int = -1  # from which on speed is measured, as the first one may compile and tune; -1: none yet
    first_seconds: float = 0.0
    is_saved: bool = False

    def at(self, step: int, steps: int) -> float:
        """The place before a step, counted from 0, of a run of so many."""
        if not self.rate:
            return min(1.0, max(self.place, step / max(steps, 1)))
        return min(1.0, self.place + max(step - self.step, 0) * self.rate)

    def is_due(self, step: int) -> bool:
        """Whether it is to be fitted after so many steps, though nothing is saved there."""
        first = self.first_step
        return not self.is_saved and (first < 0 or step - first >= 2 * (self.step - first))

    def fit(self, step: int, steps: int, seconds: float, limit: float) -> None:
        """Head for the end.

        Args:
            step: how many are done, of `steps`.
            seconds: how many have passed, of `limit`.
        """
        if self.first_step < 0:
            self.first_step, self.first_seconds = step, seconds
        if step <= self.first_step:
            return
        each = (seconds - self.first_seconds) / (step - self.first_step)
        left = max(min(steps - step, (limit - seconds) / max(each, 1e-9)), 1.0)
        place = self.at(step, steps)
        self.place, self.step, self.rate = place, step, (1 - place) / left

    def restart(self, step: int, steps: int, seconds: float, limit: float) -> None:
        """Another limit, or another number of steps: the place is the part of them that is over."""
        self.place, self.step, self.rate = seconds / limit, step, 0.0
        self.place = self.at(step, steps)
        if self.first_step >= 0:
            self.fit(step, steps, seconds, limit)
