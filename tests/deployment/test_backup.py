"""deploy/backup: what it keeps comes back whole, it waits for a run, and half a backup is never taken for one."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from kgrec.serving.recommend import load
from kgrec.workspace import Workspace
from tests.deployment.composing import ROOT

pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="flock (util-linux) is not installed")


def backup(workspace: Path, backups: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    given = {"PATH": os.environ["PATH"], "WORKSPACE": str(workspace), "BACKUPS": str(backups), "WAIT_SECONDS": "1"}
    return subprocess.run(
        [ROOT / "deploy" / "backup"], env=given | variables, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_workspace_comes_back_and_answers_as_before(tiny_copy: Path, tmp_path: Path) -> None:
    before = load(tiny_copy).recommend(["u01", "u02"], k=5)
    made = backup(tiny_copy, tmp_path / "backups")
    assert made.returncode == 0, made.stderr
    again = tmp_path / "again"
    again.mkdir()
    archive = Path(made.stdout.strip()) / "workspace.tar.gz"
    subprocess.run(["tar", "--extract", "--gzip", f"--file={archive}", f"--directory={again}"], check=True)
    shutil.rmtree(tiny_copy)
    assert load(again).recommend(["u01", "u02"], k=5).equals(before)
    assert not (again / "scratch").exists()
    assert archive.stat().st_mode & 0o077 == 0, "it holds personal data: its owner alone may read it"


def test_while_a_run_writes_it_waits_and_then_says_so(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "workspace")
    with place.hold("a run"):
        refused = backup(place.root, tmp_path / "backups")
    assert refused.returncode == 1
    assert "was held for 1 s" in refused.stderr
    left = [path.name for path in (tmp_path / "backups").iterdir()]
    assert [name for name in left if not name.endswith(".part")] == []
    made = backup(place.root, tmp_path / "backups")
    assert made.returncode == 0
    assert [path.name for path in (tmp_path / "backups").iterdir()] == [Path(made.stdout.strip()).name], "no part left"


def test_old_backups_go_and_only_those(tmp_path: Path) -> None:
    place, backups = Workspace(tmp_path / "workspace"), tmp_path / "backups"
    for name, days in (("2026-01-01T013000Z", 20), ("2026-01-15T013000Z", 3), ("pictures", 400)):
        (backups / name).mkdir(parents=True)
        then = time.time() - days * 86_400
        os.utime(backups / name, (then, then))
    made = backup(place.root, backups, KEEP_DAYS="14")
    left = {path.name for path in backups.iterdir()}
    assert left == {"2026-01-15T013000Z", "pictures", Path(made.stdout.strip()).name}


def test_what_is_set_wrong_is_said(tmp_path: Path) -> None:
    gone = backup(tmp_path / "gone", tmp_path / "backups")
    assert (gone.returncode, "no workspace at" in gone.stderr) == (2, True)
    Workspace(tmp_path / "workspace")
    wrong = backup(tmp_path / "workspace", tmp_path / "backups", KEEP_DAYS="two weeks")
    assert (wrong.returncode, "no number of days" in wrong.stderr) == (2, True)
    failed = backup(tmp_path / "workspace", tmp_path / "backups", DATABASES="shop", PGHOST=str(tmp_path))
    assert failed.returncode != 0, "a dump that fails fails the backup"
    assert [path for path in (tmp_path / "backups").iterdir() if path.suffix != ".part"] == []
