"""Prints results for people: tables on stdout, made with rich."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

console = Console(highlight=False, soft_wrap=False)


def as_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def fault(error: Exception, *, as_object: bool, problems: Sequence[Any] = ()) -> None:
    """Print an error for people on stderr and, where asked for, as a JSON object on stdout."""
    click.echo(f"error: {error}", err=True)
    if as_object:
        as_json({"error": {"message": str(error), "problems": [vars(problem) for problem in problems]}})


def run_result(result: Mapping[str, Any]) -> None:
    """Print the figures of a run beside the baselines, the gate's verdict and where the report is."""
    figures(result)
    gate = result["gate"]
    console.print()
    version = result.get("version")
    if version is None:
        console.print("nothing to serve: the data has no interactions")
    elif result["promoted"]:
        console.print(f"[bold green]version {version} is promoted[/]")
    elif gate["passed"]:
        console.print(f"[bold]version {version} passed the gate earlier; another version is served[/] (kgrec versions)")
    else:
        console.print(f"[bold red]version {version} was refused by the gate[/]")
    for reason in gate["reasons"]:
        console.print(f"  - {reason}", markup=False)
    stages = ", ".join(
        f"{name} {'reused' if stage['cached'] else format(stage['seconds'], '.1f') + ' s'}"
        for name, stage in result["stages"].items()
    )
    console.print(f"\nstages: {stages}; peak memory {result['peak_rss_mb']:.0f} MB", markup=False)
    click.echo(f"report: {result['report']}")


def figures(result: Mapping[str, Any]) -> None:
    """Print the alarms first, then the figures of the test part beside the baselines."""
    from kgrec.evaluation.report_details import alarm_sentences

    alarms = alarm_sentences(result["evaluation"])
    for sentence in alarms:
        console.print(f"ALARM {sentence}", style="bold red", markup=False)
    if alarms:
        console.print("Until the alarms are explained, believe no figure below.\n", style="red")
    test = result["metrics"].get("test", {})
    _ranking_table(test, result["baselines"])
    _task_lines(test)


def _ranking_table(test: Mapping[str, Any], baselines: Mapping[str, Mapping[str, float]]) -> None:
    ranking = test.get("ranking")
    if not ranking:
        return
    names = [name for name in ranking if "@" in name and name.split("@")[0] in ("recall", "ndcg", "mrr")]
    table = Table(
        title=f"Ranking on the test part, {ranking['num_users']:,} users, full catalogue", title_justify="left"
    )
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    rows = {"kgrec": ranking, **baselines}
    best = {name: max(row.get(name, 0.0) for row in rows.values()) for name in names}
    for label, row in rows.items():
        cells = []
        for name in names:
            text = f"{row[name]:.4f}" if name in row else "-"
            cells.append(f"[bold]{text}[/]" if row.get(name) == best[name] else text)
        table.add_row(label, *cells)
    console.print(table)


def _task_lines(test: Mapping[str, Any]) -> None:
    cold = test.get("ranking_cold")
    if cold:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in cold.items() if name.startswith("recall@"))
        console.print(f"items that training never saw: {figures} ({cold['num_users']:,} users)")
    for name, words in (("click", "click"), ("conversion", "conversion, on clicked rows"),
                        ("click_and_conversion", "click and conversion, on all exposures")):  # fmt: skip
        figures = test.get(name, {})
        if "auc" in figures:
            console.print(
                f"{words}: AUC {figures['auc']:.4f}, log loss {figures['log_loss']:.4f}, ECE {figures['ece']:.4f}"
            )
    link = test.get("link")
    if link and "mrr" in link:
        console.print(f"links held out: MRR {link['mrr']:.4f}, hits@10 {link['hits@10']:.4f} ({link['num_triples']:,})")


def items(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a list of items with title, score and, where there is one, the reason."""
    table = Table(title=title, title_justify="left")
    with_reason = any("reason" in row for row in rows)
    table.add_column("item", no_wrap=True)
    table.add_column("title")
    table.add_column("score", justify="right", no_wrap=True)
    if with_reason:
        table.add_column("reason", overflow="fold")
    for row in rows:
        cells = [str(row["item"]), row["title"] or "-", f"{row['score']:.3f}"]
        table.add_row(*cells, *([str(row["reason"])] if with_reason else []))
    console.print(table)


def version_list(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print all versions with their verdicts."""
    table = Table(title="Versions", title_justify="left")
    for name in ("version", "name", "created", "gate", "serving", "ndcg"):
        table.add_column(name)
    for row in rows:
        ranking = row["metrics"].get("ranking", {})
        ndcg = next((f"{value:.4f}" for name, value in ranking.items() if name.startswith("ndcg@")), "-")
        table.add_row(
            row["version"], row["name"], row["created"], "passed" if row["gate_passed"] else "refused",
            "now" if row["serving"] else "files removed" if row["removed"] else "", ndcg,
        )  # fmt: skip
    console.print(table if rows else "no versions yet: kgrec run CONFIG")


def is_terminal() -> bool:
    """Say whether stdout is a terminal."""
    return sys.stdout.isatty()
