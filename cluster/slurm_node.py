"""What a SLURM job does on each node: python cluster/slurm_node.py HOST PORT WORKERS

A relay and workers. Should the first node be lost, with redis and the head, SLURM leaves the others
in a job without a head; so whoever cannot reach it for a minute has the job begin again.
"""

import logging
import os
import socket
import subprocess
import sys
import time

import click

from cluster.jobs import ROOT
from utils.program import set_up_program, until_told_to_end

log = logging.getLogger("node")

LOOK_SECONDS = 2.0
ANSWER_SECONDS = 3.0  # that the first node has to take a connection
LOST_SECONDS = 60.0  # without an answer; a server that died is there again within one
END_SECONDS = 12.0  # that relay and workers have for their end


@click.command()
@click.argument("host")
@click.argument("port", type=int)
@click.argument("workers", type=int)
def cli(host: str, port: int, workers: int) -> None:
    """Serve the head's server at HOST and PORT with so many WORKERS."""
    set_up_program()
    lasts = until_told_to_end()
    words = [f"--master_host={host}", f"--master_port={port}", f"--num_workers={workers}"]
    program = [sys.executable, str(ROOT / "es" / "worker.py"), "workers", *words]
    machine = subprocess.Popen(program, stdin=subprocess.DEVNULL)
    answered = time.monotonic()
    try:
        while lasts(LOOK_SECONDS) and machine.poll() is None:
            if _answers(host, port):
                answered = time.monotonic()
            elif time.monotonic() - answered > LOST_SECONDS:
                log.error("the first node is lost: the job begins again")
                subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
                return
    finally:
        machine.terminate()
        try:
            machine.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            machine.kill()
            machine.wait()
    sys.exit(max(machine.returncode, 0))


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), ANSWER_SECONDS):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    cli()
