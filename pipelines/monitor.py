"""A look at new data with the promoted version, told to people, and a retrain where an alert stands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from rich.table import Table

from feature_store.catalog import VIEWS
from kgrec.chain.context import Run
from kgrec.chain.monitoring import look
from kgrec.config import load_config
from kgrec.errors import InputError, Problem
from kgrec.notify import Happening, notify
from kgrec.stages import RunResult
from kgrec.workspace import Workspace
from pipelines import show
from pipelines.environment import prepare_environment
from pipelines.server import TemporaryServer


def monitor_config(
    config: str, overrides: tuple[str, ...], workspace: str, since: str, until: str | None, *, retrain: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Look, tell, and retrain where asked and an alert stands; the status is 0, or 3 where the gate refused."""
    start, end = instant("--since", since), None if until is None else instant("--until", until)
    if end is not None and end <= start:
        raise InputError(Problem("--until", "not after --since", "name a later instant", example=until))
    loaded, place = load_config(config, overrides), Workspace(workspace, must_exist=True)
    run = Run(loaded, place, VIEWS)
    status = 0
    with place.hold(f"kgrec monitor {config}"):
        answer = look(run, start, end)
        if answer["raised"]:
            name = loaded.config.name
            text = f"{name}: drift since version {answer['version']} was trained: {', '.join(answer['raised'])}"
            facts = {key: answer[key] for key in ("version", "window", "alerts", "raised")}
            notify(loaded.config.notify, Happening.DRIFT, name, text, facts)
        if retrain and answer["alerts"]:
            result = _retrain(run)
            answer["retrain"] = result.as_dict()
            status = 0 if result.released.verdict.passed else 3
    if as_json:
        show.as_json(answer)
    else:
        _print(answer)
    return status


def instant(option: str, text: str) -> datetime:
    """Read an ISO 8601 instant; without a zone it is UTC. InputError for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        remedy = "write a date or an instant, as 2026-05-01 or 2026-05-01T03:00:00+02:00"
        raise InputError(Problem(option, "no instant (ISO 8601)", remedy, example=text)) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _retrain(run: Run) -> RunResult:
    prepare_environment(run.workspace)
    with TemporaryServer(run.workspace.prefect_home) as server:
        from pipelines import train

        server.wait()
        result: RunResult = train.run_flow(Run(run.loaded, run.workspace, run.views), "promote")
    return result


def _print(answer: dict[str, Any]) -> None:
    window = answer["window"]
    title = f"Version {answer['version']} and {window['events']:,} events, {window['since']} to {window['until']}"
    table = Table(title=title, title_justify="left")
    for name in ("signal", "before", "now", "effect", "threshold", "p", "rows", ""):
        table.add_column(name, justify="left" if name in ("signal", "") else "right")
    for signal in answer["signals"]:
        cells = [f"{signal[name]:.4g}" if name in signal else "-" for name in ("before", "now")]
        chance = f"{signal['p']:.2g}" if "p" in signal else "-"
        alert = "[bold red]alert[/]" if signal["name"] in answer["alerts"] else ""
        table.add_row(signal["name"], *cells, f"{signal['effect']:.3f}", f"{signal['threshold']:.3g}", chance,
                      f"{signal['rows']:,}", alert)  # fmt: skip
    show.console.print(table)
    click.echo(f"alerts: {', '.join(answer['alerts']) or 'none'}")
    if "retrain" in answer:
        show.run_result(answer["retrain"])
    click.echo(f"report: {answer['report']}")
