"""A model that two processes trained with shared-out tables is served, and goes on, as that of one."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from kgrec.chain.learn import HISTORY
from kgrec.serving.package import VECTORS
from kgrec.serving.recommend import load
from tests import worlds
from tests.calling import as_json, call, leave_prefect_out

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

EPOCHS = 24
SETTINGS = (
    "model.propagation=sampled", "training.tables=torchrec", "training.sharding=row_wise", "training.patience=0",
    "training.optimiser=adagrad", f"training.epochs={EPOCHS}", "baselines.ease_lambda=[100.0]",
)  # fmt: skip
OVERRIDES = [part for setting in SETTINGS for part in ("--set", setting)]
TOLERANCE = 1e-4
HEAVY = ("dask", "distributed", "prefect_dask", "ray", "prefect_ray", "torchrec", "fbgemm_gpu")


def job_processes(workspace: Path) -> dict[int, str]:
    """Return the processes that work on a job of this workspace: number, and rank ("" for what launches them)."""
    found = {}
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and str(workspace).encode() in (place / "cmdline").read_bytes():
                settings = (place / "environ").read_bytes().split(b"\0")
                ranks = [setting[5:].decode() for setting in settings if setting.startswith(b"RANK=")]
                found[int(place.name)] = ranks[0] if ranks else ""
        except OSError:  # it has ended
            continue
    return found


def wait_for_an_epoch(workspace: Path, stop: Event) -> int:
    """Wait until the processes have stored some epochs; return how many, or 0 when asked to stop."""
    while not stop.wait(0.01):
        told = [line for path in workspace.glob("checkpoints/*.told.jsonl") for line in path.read_text().splitlines()]
        if len(told) > 2:
            return len(told)
    return 0


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which one process trained and the model is served."""
    pytest.importorskip("torchrec", reason="pip install --no-deps -r requirements/torchrec-cpu.txt")
    workspace = tmp_path_factory.mktemp("alone") / "workspace"
    with pytest.MonkeyPatch.context() as patch:
        leave_prefect_out(patch)
        as_json(call("train", worlds.TINY, "--workspace", workspace, "--json", *OVERRIDES))
        shutil.copytree(workspace, workspace.with_name("untrained"))
        shutil.rmtree(workspace.with_name("untrained") / "artifacts" / "train")
        as_json(call("run", worlds.TINY, "--workspace", workspace, "--json", *OVERRIDES))
    return workspace


@pytest.fixture
def untrained(alone: Path, tmp_path: Path, without_prefect: None) -> Path:
    """A workspace with all that training reads."""
    return Path(shutil.copytree(alone.with_name("untrained"), tmp_path / "workspace"))


def losses(workspace: Path) -> list[dict[str, float]]:
    (artifact,) = (workspace / "artifacts" / "train").iterdir()
    return [
        {name: value for name, value in epoch.items() if name.startswith(("loss/", "validation/"))}
        for epoch in json.loads((artifact / HISTORY).read_text())
    ]


def assert_same_losses(workspace: Path, other: Path) -> None:
    mine, theirs = losses(workspace), losses(other)
    assert len(mine) == len(theirs) == EPOCHS
    for found, expected in zip(mine, theirs, strict=True):
        assert found.keys() == expected.keys()
        assert all(math.isclose(found[name], expected[name], rel_tol=TOLERANCE) for name in expected)


def assert_same_vectors(workspace: Path, other: Path) -> None:
    mine, theirs = (
        load_file(next((place / "artifacts" / "train").iterdir()) / VECTORS) for place in (workspace, other)
    )
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, rtol=0, atol=TOLERANCE, msg=name)


def assert_same_lists(workspace: Path, other: Path) -> None:
    """The same scores by place; items may change places only where their scores are as near as the tolerance."""
    mine, theirs = load(workspace), load(other)
    users = list(theirs.users.entries)
    found, expected = (version.recommend(users=users, k=10) for version in (mine, theirs))
    assert found.height == expected.height >= 10 * 60
    assert found["user"].equals(expected["user"])
    np.testing.assert_allclose(found["score"], expected["score"], rtol=0, atol=TOLERANCE)
    moved = pl.DataFrame({"a": found["item"], "b": expected["item"], "score": expected["score"]})
    assert moved.filter(pl.col("a") != pl.col("b")).height <= 0.01 * moved.height


@pytest.mark.parametrize("launcher", ["ray", "torchrun"])
def test_what_two_ranks_trained_is_served_as_what_one_did(
    launcher: str, alone: Path, untrained: Path, request: pytest.FixtureRequest
) -> None:
    if launcher == "ray":
        request.getfixturevalue("ray_cluster")
    killed: list[int] = []
    over = Event()

    def kill_a_rank() -> None:
        if wait_for_an_epoch(untrained, over):
            killed.extend(number for number, rank in job_processes(untrained).items() if rank == "1")
            os.kill(killed[0], signal.SIGKILL)

    killer = Thread(target=kill_a_rank)
    if launcher == "torchrun":  # Ray's death is that of tests/training/test_world.py
        killer.start()
    command = ["--workspace", untrained, "--json", *OVERRIDES]
    told = as_json(call("train", worlds.TINY, *command, "--launcher", launcher, "--processes", "2"))
    over.set()
    if launcher == "torchrun":
        killer.join()
        assert len(killed) == 1, "no rank was killed"
    assert told["facts"]["launch"] == {"launcher": launcher, "processes": 2}
    assert_same_losses(untrained, alone)
    assert_same_vectors(untrained, alone)
    if launcher == "torchrun":  # from equal vectors follow equal lists, by whatever launcher
        assert as_json(call("run", worlds.TINY, *command))["stages"]["train"]["cached"]
        assert_same_lists(untrained, alone)


def test_a_training_of_two_ranks_that_is_killed_goes_on_in_one(
    alone: Path, untrained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = ["train", str(worlds.TINY), "--workspace", str(untrained), "--json", *OVERRIDES]
    apart = "import sys; from tests.calling import *; leave_prefect_out(pytest.MonkeyPatch()); main(sys.argv[1:])"
    whole = subprocess.Popen(
        [sys.executable, "-c", apart, *command, "--launcher", "torchrun", "--processes", "2"], cwd=worlds.ROOT
    )
    reached = wait_for_an_epoch(untrained, Event())
    while ours := job_processes(untrained):  # the command, the agent and the ranks, as when the machine goes down
        for number in ours:
            os.kill(number, signal.SIGKILL)
        time.sleep(0.01)
    whole.wait()
    assert 0 < reached < EPOCHS
    assert not (untrained / "artifacts" / "train").exists()
    with caplog.at_level(logging.INFO, "kgrec.training.trainer"):
        told = as_json(call(*command))
    went_on = [record.args[0] for record in caplog.records if record.msg == "training goes on after epoch %d"]
    assert went_on
    assert reached - 1 <= went_on[0] < EPOCHS
    assert told["facts"].get("launch") is None
    assert_same_losses(untrained, alone)


def test_the_default_path_imports_neither_dask_nor_ray_nor_torchrec(tmp_path: Path) -> None:
    if not any(find_spec(name) for name in HEAVY):
        pytest.skip("none of them is installed")
    program = """
import json, pkgutil, sys
from importlib import import_module
import feature_store, kgrec, pipelines
OWN = ("kgrec.training.distributed.ray_train", "kgrec.training.distributed.sharded_tables", "kgrec.training.search")
for package in (feature_store, kgrec, pipelines):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name not in OWN:
            import_module(module.name)
from kgrec.stages import run
run("configs/tiny.toml", sys.argv[1], overrides=["training.epochs=1"])
print(json.dumps([name for name in sys.argv[2:] if name in sys.modules]))
"""
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), *HEAVY], cwd=worlds.ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert json.loads(found.stdout.splitlines()[-1]) == []
