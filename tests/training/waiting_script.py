"""What each of two processes runs in the tests of their end: `main([job])` says who it is and waits."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """Leave this process's number and its parent's beside the job, and stay."""
    place = Path(arguments[0]).with_name(f"rank{os.environ['RANK']}")
    aside = place.with_suffix(".part")
    aside.write_text(f"{os.getpid()} {os.getppid()}")
    aside.replace(place)
    time.sleep(600)
