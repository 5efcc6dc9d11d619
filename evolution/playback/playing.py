"""Episodes that a user asks for: seen in a window or as a film, or only counted."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from evolution.loop import confidence_interval
from evolution.playback.replay import fresh_seeds, play_parts
from evolution.playback.show import PICTURES, WINDOW, Stage, draw_without_display, no_window
from evolution.problem import Problem
from utils.film import Film
from utils.program import interrupted_between_steps
from utils.progress import Progress

LEAST_PARTS, MOST_EPISODES = 10, 256  # of an evaluation, after each of which it says how it goes

Say = Callable[[str], object]  # a line to the user


def evaluate(problem: Problem, theta: np.ndarray, episodes: int, seed: int) -> str:
    """Play fresh episodes unseen, showing the running mean; returns how they went.

    Args:
        theta: float32[dim].
        seed: decides the episodes.
    """
    seeds = fresh_seeds(seed, episodes)
    parts = np.array_split(seeds, min(episodes, max(LEAST_PARTS, episodes // MOST_EPISODES)))
    returns, lengths = np.empty(0, np.float32), np.empty(0, np.int64)
    with Progress(len(parts), "part") as progress:
        for part, steps in play_parts(problem, theta, parts):
            returns, lengths = np.append(returns, part), np.append(lengths, steps)
            progress.advance({"episodes": str(len(returns)), "mean": _so_far(returns)})
    return (
        f"{episodes} episodes on {problem.engine} (--seed {seed}): mean"
        f" {mean(returns):.2f} ± {confidence_interval(returns):.2f} (95 % confidence),"
        f" min {returns.min():.2f}, max {returns.max():.2f}, {lengths.mean():.1f} steps each"
    )


def show(
    problem: Problem,
    theta: np.ndarray,
    seeds: Sequence[int],
    *,
    film: Path | None,
    otherwise: Path,
    sleep: float,
    say: Say,
) -> None:
    """Play the episodes of some seeds in a window, or into a film.

    Args:
        theta: float32[dim].
        film: to make in any case.
        otherwise: the film to make if there is no window.
        sleep: seconds between two steps in a window.
    """
    if problem.engine == "envpool":
        say(
            "shown are Gymnasium's episodes: EnvPool, on which the run was evaluated, draws"
            " nothing and begins other episodes from equal seeds"
        )
    reason = no_window()
    if film is None and reason is None:
        with Stage(problem, theta, WINDOW) as stage:
            _play(stage, seeds, say, sleep=sleep)
        return
    if film is None:
        say(f"{reason}: making the film {otherwise}")
    make_film(problem, theta, seeds, film or otherwise, say)


def make_film(
    problem: Problem, theta: np.ndarray, seeds: Sequence[int], film: Path, say: Say
) -> list[float]:
    """Play the episodes of some seeds into a film; returns their returns."""
    draw_without_display()
    with (
        Stage(problem, theta, PICTURES) as stage,
        Film(film, stage.pictures_per_second) as reel,
    ):
        returns = _play(stage, seeds, say, look=lambda: reel.add(stage.picture()))
    say(f"wrote {film}: {reel.pictures} pictures, {stage.pictures_per_second:g} a second")
    return returns


def _play(
    stage: Stage,
    seeds: Sequence[int],
    say: Say,
    *,
    look: Callable[[], object] = lambda: None,
    sleep: float = 0.0,
) -> list[float]:
    returns = []
    with interrupted_between_steps() as rest:

        def between() -> None:
            look()
            rest(sleep)

        for number, seed in enumerate(seeds, 1):
            earned, steps = stage.play(seed, between)
            say(f"episode {number}: return {earned:.2f} after {steps} steps (seed {seed})")
            returns.append(earned)
    return returns


def _so_far(returns: np.ndarray) -> str:
    """The mean, and half its confidence interval as soon as there is one."""
    half = f" ± {confidence_interval(returns):.2f}" if len(returns) > 1 else ""
    return f"{mean(returns):.2f}{half}"


def mean(returns: np.ndarray) -> float:
    """Of float32 values, added up as float64."""
    return float(returns.mean(dtype=np.float64))
