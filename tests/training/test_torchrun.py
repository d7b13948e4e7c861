"""Processes that torchrun started end with the command, and with torchrun's agent, however these end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import worlds

PATIENCE_SECONDS = 60
COMMAND = """
import sys
from pathlib import Path
from kgrec.training.distributed.launch import Launch
from kgrec.training.distributed.torchrun import start
start(Launch(launcher="torchrun", processes=2), "tests.training.waiting_script", Path(sys.argv[1]))
"""


def runs(process: int) -> bool:
    """Say whether a process is there and more than an entry that nobody has collected."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize("victim", ["command", "agent"])
def test_nobody_goes_on_when_the_command_or_the_agent_is_killed(victim: str, tmp_path: Path) -> None:
    places = [tmp_path / f"rank{rank}" for rank in range(2)]
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tmp_path / "job.json")], cwd=worlds.ROOT, stderr=subprocess.PIPE, text=True
    )
    ours = [command.pid]
    try:
        wait_until(lambda: all(place.exists() for place in places), "the processes did not start")
        ranks, agents = zip(*(map(int, place.read_text().split()) for place in places), strict=True)
        assert len(set(agents)) == 1
        ours += [agents[0], *ranks]
        assert len(set(ours)) == 4
        assert all(runs(process) for process in ours)
        os.kill({"command": command.pid, "agent": agents[0]}[victim], signal.SIGKILL)
        _, said = command.communicate(timeout=PATIENCE_SECONDS)
        wait_until(lambda: not any(runs(process) for process in ours), "somebody goes on")
    finally:
        for process in ours:
            if runs(process):
                os.kill(process, signal.SIGKILL)
        command.wait()
    if victim == "agent":
        assert "WorkersLostError" in said
