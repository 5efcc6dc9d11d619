"""When a run ends: whatever is reached first."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Looked at before each generation, which is never cut short; None: no limit.

    All but the hours depend on what was evaluated alone: a run that is resumed, or has other
    workers, ends at the same generation. The hours are those at work, in however many sittings.
    """

    generations: int
    fitness: float | None = None  # of theta, averaged over the last generations
    steps: int | None = None  # of the environment, all evaluations of the run together
    hours: float | None = None  # on the clock

    def reached(
        self, *, generations: int, fitness: float | None, steps: int, seconds: float
    ) -> str | None:
        """Which of them a run has reached, in a config's words; None: it goes on.

        Args:
            fitness: None as long as there is no average yet.
        """
        if self.fitness is not None and fitness is not None and fitness >= self.fitness:
            return f"stop_fitness={self.fitness:g}, with {fitness:.2f}"
        if generations >= self.generations:
            return f"num_generations={self.generations}"
        if self.steps is not None and steps >= self.steps:
            return f"n_tsteps={self.steps}, with {steps:,} steps"
        if self.hours is not None and seconds >= 3600 * self.hours:
            return f"max_hours={self.hours:g}, after {seconds / 3600:.3g} hours"
        return None
