"""Calls the command line: in this process with `call`, as a user would with the installed `KGREC`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kgrec.stages import call_directly, run_chain
from pipelines.cli import main

KGREC = Path(sys.executable).with_name("kgrec")


def call(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def as_json(result: Result) -> Any:
    """Return the one JSON object that is the whole of stdout."""
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def leave_prefect_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands go through the stages themselves: the server takes seconds to start, faults have no use for it."""
    from pipelines import train

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # no temporary server is started then
    monkeypatch.setattr("pipelines.server.TemporaryServer.wait", lambda server: None)
    monkeypatch.setattr(train, "run_flow", lambda context, until: run_chain(context, until=until))
    monkeypatch.setattr(train, "as_flow", lambda name, work: work(call_directly))
