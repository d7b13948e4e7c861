"""`kgrec evaluate --recommendations --truth`: any system's table against a table of relevant items."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from kgrec.errors import InputError, Problem
from pipelines import show


def evaluate_files(recommendations: str | None, truth: str | None, lengths: str, *, as_json: bool) -> int:
    """Score one file against another and print the metrics."""
    from kgrec.columns import RANK, SCORE
    from kgrec.data.sources import RESERVED, TableSource, materialise
    from kgrec.data.values import number_of
    from kgrec.evaluation.tables import evaluate_tables

    missing = [name for name, value in (("--recommendations", recommendations), ("--truth", truth)) if value is None]
    if missing:
        raise InputError(Problem(missing[0], "not given", "name both --recommendations FILE and --truth FILE"))
    try:
        k = [int(part) for part in lengths.split(",")]
    except ValueError:
        raise InputError(Problem("--k", "not a list of whole numbers", "write --k 10,20", example=lengths)) from None
    with tempfile.TemporaryDirectory() as scratch:
        frames = []
        for path in (str(recommendations), str(truth)):
            table = materialise(TableSource(path=str(Path(path).resolve())), Path.cwd(), Path(scratch))
            numbers = [
                number_of(name, table.schema()[name]).alias(name)  # text files hold text
                for name in (SCORE, RANK)
                if table.is_text and name in table.schema()
            ]
            frames.append(table.frame.with_columns(numbers).drop(RESERVED).collect())
    metrics = evaluate_tables(frames[0], frames[1], k)
    if as_json:
        show.as_json(metrics)
    else:
        for name, value in metrics.items():
            click.echo(f"{name:<36}{value:.6g}")
    return 0
