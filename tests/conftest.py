"""What many tests share: an environment of their own, and one finished workspace of the tiny world."""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

_HOME = tempfile.mkdtemp(prefix="kgrec-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

# Prefect and MLflow read these when they are first imported, so they are set before anything else is.
os.environ.update(
    PREFECT_HOME=str(Path(_HOME) / "prefect"),
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_UI_ENABLED="false",
    PREFECT_LOGGING_LEVEL="WARNING",
    PREFECT_SERVER_LOGGING_LEVEL="ERROR",
    DO_NOT_TRACK="1",
    MLFLOW_DISABLE_TELEMETRY="true",
)
os.environ.pop("PREFECT_API_URL", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)

from feature_store.catalog import VIEWS  # noqa: E402  after the environment
from kgrec.stages import RunResult, run  # noqa: E402
from tests import worlds  # noqa: E402
from tests.calling import leave_prefect_out  # noqa: E402

_ADDRESSES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
              ("model_versions", "storage_location"))  # fmt: skip


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """With KGREC_NOTHING_SKIPPED set, a test that is skipped has failed: what it needs was to be installed."""
    report = yield
    if report.skipped and os.environ.get("KGREC_NOTHING_SKIPPED"):
        report.outcome, report.longrepr = "failed", f"skipped, where nothing may be: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One cluster of Ray on this machine for all tests that ask for one; skipped where Ray is not installed."""
    pytest.importorskip("ray", reason='pip install "kgrec[ray]"')
    with import_module("kgrec.training.distributed.ray_train").cluster(2):
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The result of an undisturbed run of `configs/tiny.toml`, without Prefect. Its workspace is for reading only."""
    return run(worlds.TINY, tmp_path_factory.mktemp("tiny") / "workspace", views=VIEWS)


@pytest.fixture
def tiny_copy(tiny: RunResult, tmp_path: Path) -> Path:
    """A copy of the tiny workspace that a test may change or damage; MLflow's addresses in it are the copy's."""
    copy = Path(shutil.copytree(tiny.workspace, tmp_path / "copy"))
    old, new = (f"{root.resolve()}/mlflow-artifacts" for root in (Path(tiny.workspace), copy))
    with closing(sqlite3.connect(copy / "mlflow.db")) as database, database:
        for table, column in _ADDRESSES:
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, new))
    return copy


@pytest.fixture
def without_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command go through the stages itself."""
    leave_prefect_out(monkeypatch)
