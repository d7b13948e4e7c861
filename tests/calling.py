"""Calls the command line: in this process with `call`, as a user would with the installed `KGREC`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from pipelines.cli import main

KGREC = Path(sys.executable).with_name("kgrec")


def call(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def as_json(result: Result) -> Any:
    """Return the one JSON object that is the whole of stdout."""
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)
