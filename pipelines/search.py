"""`kgrec search`: the coat over `kgrec.chain.searching`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.table import Table

from pipelines import show


def search_over(config: str, trials: int | None, overrides: tuple[str, ...], workspace: str, *, as_json: bool) -> int:
    """Search, print what came of it, return the exit status."""
    from feature_store.catalog import VIEWS
    from kgrec.chain.searching import search_config
    from pipelines.progress import ProgressPainter

    with ProgressPainter() as painter:
        answer = search_config(config, workspace, trials=trials, overrides=overrides, views=VIEWS, progress=painter)
    if as_json:
        show.as_json(answer)
    else:
        _show(answer)
    return 0


def _show(answer: Mapping[str, Any]) -> None:
    keys = sorted({key for trial in answer["trials"] for key in trial["settings"]})
    shown = Table(title=f"{answer['metric']}, best first; the config's own: {answer['own']:.4f}", title_justify="left")
    shown.add_column("trial", justify="right")
    shown.add_column("", justify="right")
    for key in keys:
        shown.add_column(key.rpartition(".")[2], justify="right")
    ranked = sorted(answer["trials"], key=lambda trial: -(trial["value"] if trial["value"] is not None else -1.0))
    for trial in ranked:
        figure = trial["fault"] if trial["value"] is None else f"{trial['value']:.4f}"
        cells = (trial["settings"].get(key) for key in keys)
        told = (f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells)
        shown.add_row(str(trial["trial"] + 1), figure, *told)
    show.console.print(shown)
    if answer["set"]:
        click.echo("take it with:  " + " ".join(f"--set {line}" for line in answer["set"]))
    else:
        click.echo("nothing tried was better than the config's own settings")
    click.echo(f"study: {answer['study']}")
