"""Prints a comparison for people: the verdicts first, then a table a group, then the differences that decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.table import Table

from kgrec.evaluation.compare_report import chance, level_tables, signed
from kgrec.evaluation.compare_words import GROUPS
from kgrec.evaluation.report_words import decimals
from pipelines.show import console

_COLOURS = {"better": "green", "worse": "red"}


def show_comparison(answer: Mapping[str, Any]) -> None:
    """Print a comparison as `kgrec compare` returns it."""
    for sentence in answer["verdicts"]:
        console.print(f"- {sentence}", markup=False)
    seeds = ", ".join(str(seed) for seed in answer["seeds"])
    for table in level_tables(answer):
        units = "triples" if table["group"] == "link" else "users"
        title = f"{table['words'][0].upper()}{table['words'][1:]}: test, {table['num_units']:,} {units}, seeds {seeds}"
        _print_levels(title, table)
    _print_differences(answer)
    click.echo(f"report: {answer['report']}")


def _print_levels(title: str, table: Mapping[str, Any]) -> None:
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for metric in table["metrics"]:
        shown.add_column(metric, justify="right")
    for name, cells in table["rows"]:
        shown.add_row(name, *("-" if cell is None else decimals(cell["mean"]) for cell in cells))
    console.print()
    console.print(shown)


def _print_differences(answer: Mapping[str, Any]) -> None:
    shown = Table(title=f"Differences to {answer['reference']}, 95 % over users, p by Holm", title_justify="left")
    for name in ("arm", "figure", "metric", "difference", "from", "to", "p", ""):
        shown.add_column(name, justify="right" if name in ("difference", "from", "to", "p") else "left")
    for line in answer["differences"]:
        colour = _COLOURS.get(line["outcome"])
        outcome = f"[{colour}]{line['outcome']}[/]" if colour else line["outcome"]
        low, high = line["interval"]
        shown.add_row(
            line["arm"], GROUPS[line["group"]], line["metric"], signed(line["difference"]), signed(low), signed(high),
            chance(line["p_holm"]), outcome,
        )  # fmt: skip
    console.print()
    console.print(shown)
