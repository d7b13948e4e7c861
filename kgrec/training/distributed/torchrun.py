"""The launcher torchrun: torch's own elastic agent on this machine, and the same entry for several machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from kgrec.training.distributed.launch import Launch, WorkersLostError

_LAST_LINES: Final = 15
SETTINGS: Final = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
"""A store of its own for each start: in a shared one, processes started again find the addresses of the dead (pytorch
issue 135712). Threads: the job sets them."""


def command(launch: Launch, module: str, job: Path) -> list[str]:
    """Return the command that trains a job on this machine.

    >>> " ".join(command(Launch(launcher="torchrun", processes=2), "there", Path("job.json"))[1:])
    '-m torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 3 --module there job.json'
    """
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(launch.processes)]
    return [*agent, "--max-restarts", str(launch.restarts), "--module", module, str(job)]


def start(launch: Launch, module: str, job: Path) -> None:
    """Run the job in processes of this machine; what they say goes to a log beside the job, its end into the error."""
    log = job.with_suffix(".log")
    with log.open("wb") as stream:
        agent = subprocess.Popen(
            command(launch, module, job), stdout=stream, stderr=subprocess.STDOUT, env=os.environ | SETTINGS
        )
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
