"""The launcher torchrun: torch's own elastic agent on this machine, and the same entry for several machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from kgrec.training.distributed import bound
from kgrec.training.distributed.launch import Launch, WorkersLostError

_LAST_LINES: Final = 15
SETTINGS: Final = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
"""A store of its own for each start: in a shared one, processes started again find the addresses of the dead (pytorch
issue 135712). Threads: the job sets them."""


def command(launch: Launch, module: str, job: Path) -> list[str]:
    """Return the command that trains a job on this machine: an agent that ends with this process, and theirs with it.

    >>> here = command(Launch(launcher="torchrun", processes=2), "there", Path("job.json"))
    >>> here[1:5]
    ['-m', 'kgrec.training.distributed.bound', 'torch.distributed.run', '--standalone']
    >>> here[5:]
    ['--nproc-per-node=2', '--max-restarts=3', '--module', 'kgrec.training.distributed.bound', 'there', 'job.json']
    """
    agent = [sys.executable, "-m", bound.MODULE, "torch.distributed.run", "--standalone"]
    how = [f"--nproc-per-node={launch.processes}", f"--max-restarts={launch.restarts}", "--module", bound.MODULE]
    return [*agent, *how, module, str(job)]


def start(launch: Launch, module: str, job: Path) -> None:
    """Run the job in processes of this machine; what they say goes to a log beside the job, its end into the error."""
    log = job.with_suffix(".log")
    environment = {**os.environ, **SETTINGS, bound.PARENT: str(os.getpid())}
    with log.open("wb") as stream:
        agent = subprocess.Popen(command(launch, module, job), stdout=stream, stderr=subprocess.STDOUT, env=environment)
        try:
            status = agent.wait()
        finally:
            if agent.poll() is None:  # this process is asked to end: the agent ends its own
                agent.terminate()
                agent.wait()
    if status != 0:
        said = "\n  ".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
        lost = f"the {launch.processes} processes of torchrun died {launch.restarts + 1} times"
        raise WorkersLostError(f"{lost}; the end of {log}:\n  {said}")
    log.unlink()
