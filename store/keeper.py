"""Keeps a run: its heart beats, and from its checkpoints it can go on."""

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from store.observer import SpoolingObserver

if TYPE_CHECKING:
    from sacred.run import Run

BEAT_SECONDS = 10.0


class Restorable(Protocol):
    """What a checkpoint is made of."""

    def state(self) -> dict[str, Any]:
        """Everything needed to go on from here, as copies."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class RunKeeper:
    """The heartbeat and the checkpoints of a run, while it lasts.

        with RunKeeper(run, {"strategy": strategy, …}, every=30) as keeper:
            for generation in evolve(…):
                recorder.record(generation)
                keeper.settle(generation.number + 1)

    A checkpoint is written after all metrics up to it are on disk, so a run that goes on from one
    has neither gap nor repeat in them.
    """

    def __init__(self, run: "Run", parts: Mapping[str, Restorable], *, every: float) -> None:
        """Keep ``run``.

        Args:
            parts: by name, all whose state changes from generation to generation.
            every: seconds from one checkpoint to the next.
        """
        self._run, self._parts, self._every = run, parts, every
        ours = [each for each in run.observers if isinstance(each, SpoolingObserver)]
        self._observer = ours[0] if ours else None
        self._settled: tuple[int, dict[str, Any]] | None = None  # not yet in a checkpoint
        self._saved_at = time.monotonic()
        self._beating = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def __enter__(self) -> "RunKeeper":
        """Go on from the newest checkpoint, if this run has been at work before."""
        if self._observer is not None and self._observer.is_resumed:
            state = self._observer.go_on()
            for name, part in self._parts.items():
                if state is not None:
                    part.restore(state[name])
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Beat once more, for what was said last; leave a checkpoint of a run that ends early."""
        self._over.set()
        self._thread.join()
        if error is not None:
            self.save()
        self.beat()

    def settle(self, number: int) -> None:
        """All parts are as before generation ``number``, and what came before is recorded.

        A signal may end the run in the middle of a part's change, so the state is taken here.

        Raises:
            SpoolError: the run has gone on elsewhere.
        """
        if self._observer is None:
            return
        self._observer.check_ours()
        self._settled = number, {name: part.state() for name, part in self._parts.items()}
        if time.monotonic() - self._saved_at >= self._every:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of what settled last, if there is none yet."""
        if self._observer is not None and self._settled is not None:
            self.beat()
            self._observer.keep(*self._settled)
            self._settled, self._saved_at = None, time.monotonic()

    def beat(self) -> None:
        """Hand what was logged to the observers; in the order of logging, whoever calls."""
        with self._beating:
            self._run._emit_heartbeat()

    def _beat_on(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self.beat()
