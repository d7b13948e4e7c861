"""A file of a log whose parsing kills the process that does it, as a machine does that has no memory left."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Deadly:
    """In place of what is computed of a file. folder: takes a mark for each death; deaths: how many there are."""

    folder: Path
    deaths: int

    def sink_ipc(self, path: Path, **how: Any) -> None:
        """Die, or write one row where enough have died."""
        died = len(list(self.folder.iterdir()))
        if died < self.deaths:
            (self.folder / str(died)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        pl.LazyFrame({"row": [died]}).sink_ipc(path, **how)
