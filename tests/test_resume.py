"""A run that is killed at a random moment and started again makes the same artifacts, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kgrec
from kgrec.stages import RunResult
from tests import worlds

RUN = """
import sys
from feature_store.catalog import VIEWS
from kgrec.stages import run
run(sys.argv[1], sys.argv[2], views=VIEWS, progress=lambda step: print(step.stage, flush=True))
"""


def start(workspace: Path) -> subprocess.Popen[str]:
    """Start a run in a process of its own; each line that it prints is the stage of a step."""
    command = [sys.executable, "-c", RUN, str(worlds.TINY), str(workspace)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=worlds.ROOT)


def kill_in(workspace: Path, stage: str, within: float, draw: random.Random) -> None:
    """Start a run and kill it at a random moment of the first `within` seconds after it entered a stage."""
    process = start(workspace)
    assert process.stdout is not None
    assert any(line.strip() == stage for line in process.stdout), "the run never came to that stage"
    time.sleep(draw.uniform(0.0, within))
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"


def written(workspace: Path) -> dict[Path, int]:
    """Return when each finished artifact was written."""
    return {
        path: path.stat().st_mtime_ns
        for path in (workspace / "artifacts").glob("*/*/manifest.json")
        if path.parents[1].name != ".building"
    }


@pytest.mark.slow
def test_a_run_killed_twice_on_its_way_ends_like_an_undisturbed_one(tiny: RunResult, tmp_path: Path) -> None:
    workspace, draw = tmp_path / "workspace", random.Random(time.time_ns())
    finished: dict[Path, int] = {}
    for stage in (draw.choice(("graph", "train")), "promote"):
        kill_in(workspace, stage, tiny.stages[stage]["seconds"] / 2, draw)
        assert not (workspace / "runs").exists()
        assert finished.items() <= written(workspace).items()  # nothing that was done is done again
        finished = written(workspace)
    last = start(workspace)
    last.communicate(timeout=120)
    assert last.returncode == 0
    made, expected = (worlds.bytes_of(place / "artifacts") for place in (workspace, tiny.workspace))
    assert set(made) == set(expected), "other keys: was the source of kgrec edited while this test ran?"
    assert made == expected
    registry = json.loads((workspace / "versions.json").read_text())
    assert [record["version"] for record in registry["versions"]] == ["1"]
    assert registry["promoted"] == "1"
    audit = [json.loads(line)["what"] for line in (workspace / "audit.jsonl").read_text().splitlines()]
    assert sorted(set(audit)) == ["promoted", "registered"]
    assert not list((workspace / "artifacts").glob(".building/*"))
    assert not list((workspace / "checkpoints").iterdir())
    assert not list(workspace.glob("**/.*.part"))
    theirs = kgrec.load(workspace).recommend(["u00", "nobody"], k=10, explain=True)
    assert theirs.equals(kgrec.load(tiny.workspace).recommend(["u00", "nobody"], k=10, explain=True))
