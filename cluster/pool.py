"""Jobs on this machine, several at a time."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from cluster.jobs import DONE, FAILED, INTERRUPTED, RUNNING, STOPPED, Head, JobFolder, last_words

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
END_SECONDS = 60.0  # that a run has for its last checkpoint


def run_jobs(
    jobs: Sequence[JobFolder],
    *,
    at_once: int,
    seconds: float,
    where: Sequence[str],
    env: Mapping[str, str],
    lasts: Callable[[float], bool],
) -> None:
    """Run them all; how each of them ended is noted in its folder.

    Args:
        at_once: so many at most.
        seconds: that each may last; then it is stopped, and can go on another time.
        where: config words that say where the work is done.
        env: what they find in their environment.
        lasts: waits so long; false when all should end.
    """
    waiting, running = list(jobs), dict[str, tuple[JobFolder, Head]]()
    try:
        while (waiting or running) and lasts(LOOK_SECONDS):
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                head = Head(job, where, env, apart=True)
                job.note(RUNNING, reason="")
                running[job.name] = job, head
                log.info("%s begins, %d wait", job.name, len(waiting))
            for name, (job, head) in list(running.items()):
                if head.code is not None:
                    _note_end(job, head)
                    del running[name]
                elif time.monotonic() - head.began > seconds:
                    job.note(STOPPED if head.end(END_SECONDS) else DONE, reason="its time was over")
                    del running[name]
    finally:
        for _, head in running.values():
            head.process.terminate()  # all at once, and then each
        for job, head in running.values():
            job.note(INTERRUPTED if head.end(END_SECONDS) else DONE)


def _note_end(job: JobFolder, head: Head) -> None:
    if head.code == 0:
        job.note(DONE, exit=0)
        log.info("%s is done", job.name)
    else:
        reason = last_words(head.said())
        job.note(FAILED, exit=head.code, reason=reason)
        log.error("%s failed: %s", job.name, reason)
