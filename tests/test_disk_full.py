"""A disk that is full, and one that may only be read: a clear word, nothing half-made, and the same command goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kgrec.errors import ArtifactError, storage_fault
from kgrec.serving.recommend import load
from kgrec.workspace import Workspace
from tests import worlds
from tests.calling import call

WORD = "the disk is full or may not be written"


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid() != 0
        or shutil.which("mount") is None
        or not mount("-t", "tmpfs", "-o", "size=300k", "none", str(place))
    ):
        pytest.skip("only root may mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("without_prefect")
def test_a_run_on_a_disk_that_fills_up_says_so_and_goes_on_when_there_is_room(disk: Path) -> None:
    command = ("run", worlds.TINY, "--workspace", disk / "ws", "--set", "gate.baselines=[]")
    stages: list[set[str]] = []
    for size in (300, 1300):
        assert mount("-o", f"remount,size={size}k", str(disk))
        result = call(*command)
        assert (result.exit_code, WORD in result.stderr) == (1, True), f"{size} kB: {result.stderr[-500:]}"
        assert "kgrec prune" in result.stderr
        stages.append({path.name for path in (disk / "ws" / "artifacts").iterdir() if not path.name.startswith(".")})
        assert not (disk / "ws" / "versions.json").exists()
    assert stages[0] < stages[1], "each fills up in another stage and goes on from the one before"
    assert mount("-o", "remount,size=40m", str(disk))
    assert call(*command).exit_code == 0
    assert load(disk / "ws").number == "1"
    assert not list((disk / "ws").glob(".*.part"))


@pytest.mark.usefixtures("without_prefect")
def test_a_disk_that_may_only_be_read_still_answers_and_refuses_to_change(disk: Path, tiny: object) -> None:
    assert mount("-o", "remount,size=40m", str(disk))
    place = Path(shutil.copytree(tiny.workspace, disk / "ws"))  # type: ignore[attr-defined]
    answer = call("recommend", "--user", "u01", "--workspace", place, "--json")
    assert mount("-o", "remount,ro", str(disk))
    assert call("recommend", "--user", "u01", "--workspace", place, "--json").stdout == answer.stdout
    for arguments in (("run", worlds.TINY, "--set", "seed=9"), ("rollback",), ("prune", worlds.TINY),
                      ("forget", "--user", "u01"), ("promote", "1")):  # fmt: skip
        result = call(*arguments, "--workspace", place)
        assert (result.exit_code, WORD in result.stderr) == (1, True), f"{arguments[0]}: {result.stderr[-500:]}"
    assert Workspace(place).registry.exists()


def test_other_faults_are_not_the_disk_s() -> None:
    assert storage_fault(ArtifactError("damaged")) is None
    hidden = RuntimeError("a library's own word")
    hidden.__cause__ = OSError(30, "Read-only file system")
    assert WORD in str(storage_fault(hidden))
