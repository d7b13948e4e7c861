"""What a run starts ahead, and when."""

from __future__ import annotations

from pathlib import Path

from kgrec.chain.context import Run
from kgrec.config import load_config
from kgrec.workspace import Workspace
from tests import worlds


def test_what_is_worth_a_start_begins_with_the_first_stage_that_is_built(tmp_path: Path) -> None:
    starts: list[str] = []

    def run_of(*names: str) -> Run:
        run = Run(load_config(worlds.TINY), Workspace(tmp_path))
        for name in names:
            run.stage(name, {"in": "a"}, {}, lambda out: {})
        return run

    run_of("ingest").builds_ahead(lambda: starts.append("one was built before"))
    reused = run_of("ingest")
    reused.builds_ahead(lambda: starts.append("never of a run that only reuses"))
    reused.stage("ingest", {"in": "a"}, {}, lambda out: {})
    later = run_of("ingest")
    later.builds_ahead(lambda: starts.append("one is built now"))
    later.stage("split", {"in": "a"}, {}, lambda out: {})
    assert starts == ["one was built before", "one is built now"]
