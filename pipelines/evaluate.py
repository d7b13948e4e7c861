"""`kgrec evaluate --truth`: any system's table, or a stored version's own lists, against a table of relevant items."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from kgrec.errors import InputError, Problem
from kgrec.workspace import Workspace
from pipelines import show

PROMOTED = "promoted"


def evaluate_files(recommendations: str | None, truth: str | None, lengths: str, *, as_json: bool) -> int:
    """Score one file against another and print the metrics."""
    from kgrec.evaluation.tables import evaluate_tables

    missing = [name for name, value in (("--recommendations", recommendations), ("--truth", truth)) if value is None]
    if missing:
        raise InputError(Problem(missing[0], "not given", "name both --recommendations FILE and --truth FILE"))
    k = _lengths(lengths)
    _print(evaluate_tables(_read(str(recommendations)), _read(str(truth)), k), as_json=as_json)
    return 0


def evaluate_version(workspace: str, version: str, truth: str | None, lengths: str, *, as_json: bool) -> int:
    """Ask a stored version for the lists of the truth's users, as the service would answer, and print the metrics.

    num_pairs_already_seen counts the relevant pairs that no list could hold: what a user had before, the log of its run
    included, is left out (evaluation.exclude_seen). So the truth should be younger than the version.
    """
    import polars as pl

    from kgrec.columns import ITEM, RANK, USER
    from kgrec.evaluation.tables import evaluate_tables
    from kgrec.serving.recommend import load

    if truth is None:
        raise InputError(Problem("--truth", "not given", "name the relevant items: --truth FILE with user, item"))
    k, wanted = _lengths(lengths), _read(truth)
    model = load(workspace, None if version == PROMOTED else version)
    lists = pl.DataFrame(schema={USER: pl.String, ITEM: pl.String, RANK: pl.Int64})
    seen = 0
    if {USER, ITEM} <= set(wanted.columns) and min(k) >= 1:
        pairs = wanted.select(pl.col(USER, ITEM).cast(pl.String)).drop_nulls().unique(maintain_order=True)
        users = pairs[USER].unique(maintain_order=True).to_list()
        if users:
            answered = model.recommend(users, max(k)).select(USER, ITEM)
            lists = answered.with_columns((pl.int_range(pl.len()).over(USER) + 1).alias(RANK))
            hidden = {user: set(model.items.ids(pl.Series(model.ask(user).seen)).to_list()) for user in users}
            seen = sum(item in hidden[user] for user, item in pairs.iter_rows())
    metrics = evaluate_tables(lists, wanted, k)
    if seen:
        click.echo(f"{seen} relevant pairs are in the version's own log and left out of its lists: "
                   "give a truth that is younger than the version", err=True)  # fmt: skip
    _print({"version": model.number} | metrics | {"num_pairs_already_seen": seen}, as_json=as_json)
    return 0


def evaluate_on_config(
    config: str, overrides: tuple[str, ...], workspace: str, version: str, *, as_json: bool
) -> int:  # fmt: skip
    """Judge a stored version on the test part that CONFIG makes of its data, and print the figures."""
    from kgrec.chain.context import Run
    from kgrec.chain.stored import judge_stored
    from kgrec.config import load_config
    from kgrec.serving.versions import promoted, read_registry, require

    place = Workspace(workspace, must_exist=True)
    with place.hold(f"kgrec evaluate {config} --model {version}"):
        run = Run(load_config(config, overrides), place)
        record = promoted(place) if version == PROMOTED else require(read_registry(place), version)
        answer = judge_stored(run, record)
    if told := answer.get("num_pairs_trained_on"):
        click.echo(f"{told} relevant pairs of this test part were in the training part of version {record.version}: "
                   "the figures are no test of it", err=True)  # fmt: skip
    if as_json:
        show.as_json(answer)
        return 0
    click.echo(f"version {answer['version']} on the test part of {config}")
    for group, figures in answer["metrics"]["test"].items():
        click.echo(f"{group}:")
        _print(figures, as_json=False)
    return 0


def _lengths(lengths: str) -> list[int]:
    try:
        return [int(part) for part in lengths.split(",")]
    except ValueError:
        raise InputError(Problem("--k", "not a list of whole numbers", "write --k 10,20", example=lengths)) from None


def _read(path: str) -> Any:
    """Return a file as a frame, scores and ranks of text files as numbers."""
    from kgrec.columns import RANK, SCORE
    from kgrec.data.sources import RESERVED, TableSource, materialise
    from kgrec.data.values import number_of

    with tempfile.TemporaryDirectory() as scratch:
        table = materialise(TableSource(path=str(Path(path).resolve())), Path.cwd(), Path(scratch))
        numbers = [
            number_of(name, table.schema()[name]).alias(name)  # text files hold text
            for name in (SCORE, RANK)
            if table.is_text and name in table.schema()
        ]
        return table.frame.with_columns(numbers).drop(RESERVED).collect()


def _print(metrics: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show.as_json(metrics)
        return
    for name, value in metrics.items():
        click.echo(f"{name:<36}{value if isinstance(value, str) else format(value, '.6g')}")
