"""SLURM's programs in a few lines of Python: all nodes are this machine, sbatch runs its script."""

import json
import os
import sys
from pathlib import Path

# What each of them does, with the folder of the pretended cluster in STUB_SLURM.
PROGRAM = """\
#!{python}
import json, os, re, signal, subprocess, sys
from pathlib import Path

home = Path(os.environ["STUB_SLURM"])
settings = json.loads((home / "settings.json").read_text())
name, words = Path(sys.argv[0]).name, sys.argv[1:]
with (home / "calls.txt").open("a") as calls:
    calls.write(json.dumps([name, *words]) + "\\n")
if name in settings["refusals"]:
    sys.exit(settings["refusals"][name])


def sinfo():
    for line in settings["sinfo"]:
        print(line)


def sbatch():
    script = Path(words[-1])
    options = dict(re.findall(r"^#SBATCH '?--([a-z-]+)=?([^'\\n]*)'?$", script.read_text(), re.M))
    count = int(options["nodes"])
    number = len(list(home.glob("job_*"))) + 1
    pid_file = home / f"job_{{number}}"
    env = {{
        **os.environ,
        "SLURM_JOB_ID": str(number),
        "SLURM_JOB_NODELIST": f"node[0-{{count - 1}}]",
        "SLURM_JOB_NUM_NODES": str(count),
    }}
    with open(options["output"], "ab") as out:
        batch = subprocess.Popen(
            ["/bin/bash", str(script)], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )
    pid_file.write_text(str(batch.pid))
    print(number)


def squeue():
    for file in sorted(home.glob("job_*")):
        command = Path(f"/proc/{{file.read_text()}}/cmdline")
        if command.exists() and command.read_bytes():
            print(f"{{file.name[4:]}}|RUNNING|0:01 of 1:00, node0")


def scancel():
    to_steps = "--signal=TERM" in words and "--batch" not in words
    for file in home.glob(f"step_{{words[-1]}}_*" if to_steps else f"job_{{words[-1]}}"):
        os.kill(int(file.read_text()), signal.SIGTERM)


def scontrol():
    if words[:2] == ["show", "hostnames"]:
        last = int(re.fullmatch(r"node\\[0-(\\d+)\\]", words[2])[1])
        print("\\n".join(f"node{{i}}" for i in range(last + 1)))
    elif words[:2] == ["show", "node"]:
        print(f"NodeName={{words[3]}} Arch=x86_64 NodeAddr=127.0.0.1 CPUTot=2")


def srun():
    rest = words[next(i for i, word in enumerate(words) if not word.startswith("--")):]
    for node in [word.partition("=")[2] for word in words if word.startswith("--nodelist=")]:
        os.environ["SLURMD_NODENAME"] = node
        (home / f"step_{{os.environ['SLURM_JOB_ID']}}_{{node}}").write_text(str(os.getpid()))
    os.execv(rest[0], rest)


globals()[name]()
"""
NAMES = ("sinfo", "sbatch", "squeue", "scancel", "scontrol", "srun")
NODES = (
    "debug*|2|idle|2|1-00:00:00",
    "debug*|1|alloc|4|1-00:00:00",
    "long|2|idle|2|infinite",
    "long|1|down*|2|infinite",
)


class StubSlurm:
    """A cluster that is this machine, for programs with its environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()
        self.settle()
        text = PROGRAM.format(python=sys.executable)
        for name in NAMES:
            (folder / name).write_text(text)
            (folder / name).chmod(0o700)

    @property
    def env(self) -> dict[str, str]:
        """For programs that are to find it."""
        return {"PATH": f"{self.folder}:{os.environ['PATH']}", "STUB_SLURM": str(self.folder)}

    def settle(self, **refusals: str) -> None:
        """Say which of the programs refuse, and in which words."""
        settings = {"sinfo": NODES, "refusals": refusals}
        (self.folder / "settings.json").write_text(json.dumps(settings))

    def calls(self, name: str) -> list[list[str]]:
        """The words with which a program has been called."""
        file = self.folder / "calls.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        return [words for program, *words in map(json.loads, lines) if program == name]
