"""Prefect's server for the length of one command: a process of its own that starts while this one imports.

It is not started where PREFECT_API_URL names a server. It ends with the command, however the command ends.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

from kgrec.errors import KgrecError, StorageError
from kgrec.parentage import end_with

API_URL: Final = "PREFECT_API_URL"
_PATIENCE_SECONDS: Final = 120
_ROOM_MB: Final = 4


class TemporaryServer:
    """A context: the server starts on entering and stops on leaving; `wait` returns when it answers.

    services: with what makes runs of schedules; a command that only records its own run has no use for it.
    """

    def __init__(self, home: Path, *, services: bool = False) -> None:
        self._services = services
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = home / ".ready"
        self._database = home / "prefect.db"

    def __enter__(self) -> TemporaryServer:
        if not os.environ.get(API_URL):
            port = _free_port()
            os.environ[API_URL] = f"http://127.0.0.1:{port}/api"
            if not self._ready.exists():
                self._forget_half_made()
            self._process = _start(port, services=self._services)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        os.environ.pop(API_URL, None)
        self._process.terminate()
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait(self) -> None:
        """Return when the server answers; KgrecError when it ended or does not answer in two minutes."""
        if self._process is None:
            return
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self._why_it_ended()
            try:
                with urllib.request.urlopen(f"{os.environ[API_URL]}/health", timeout=5):  # noqa: S310  our own address
                    self._ready.touch()
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.05)
        raise KgrecError(
            f"Prefect's temporary server did not answer within {_PATIENCE_SECONDS} s\n"
            f"  remedy:  try again, or start `prefect server start` and set {API_URL}"
        )

    def _why_it_ended(self) -> KgrecError:
        free_mb = shutil.disk_usage(self._database.parent).free / 1e6
        if free_mb < _ROOM_MB:
            return StorageError.told(f"{free_mb:.1f} MB free for Prefect's database")
        return KgrecError("Prefect's temporary server ended at its start\n  remedy:  see `kgrec doctor`")

    def _forget_half_made(self) -> None:
        """Remove a database whose making was cut short: no server ever answered from it, so it holds nothing."""
        for path in self._database.parent.glob(f"{self._database.name}*"):
            path.unlink()


def _start(port: int, *, services: bool) -> subprocess.Popen[bytes]:
    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_FINAL": "1"}
    own |= {} if services else {"PREFECT__SERVER_EPHEMERAL": "1"}
    environment = {name: value for name, value in os.environ.items() if name != API_URL}
    return subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1",
         "--port", str(port), "--log-level", "critical", "--lifespan", "on"],
        env={**environment, **own}, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        preexec_fn=partial(end_with, os.getpid()),  # noqa: PLW1509  no other thread runs yet
    )  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
