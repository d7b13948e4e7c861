"""`kgrec explain`: why an item has its score for a user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.table import Table

from kgrec.serving.explain import standing_words
from kgrec.serving.recommend import load
from kgrec.serving.standing import Standing
from pipelines import show


def explain(workspace: str, user: str, item: str, *, as_json: bool) -> None:
    """Print what each part of the score adds, what of the history carries it, and the paths in the graph."""
    found = load(workspace).explain(user, item)
    if as_json:
        show.as_json(found)
        return
    place = "left out of the list: the user had it" if found["seen"] else "beyond the first 100"
    place = f"number {found['rank']} of the list" if found["rank"] else place
    click.echo(f"{found['title'] or found['item']} for user {found['user']}, version {found['version']}")
    click.echo(f"score {found['score']:.4f}, {place}; it rests on {standing_words(Standing(found['based_on']))}")
    click.echo(f"in short: {found['reason']}\n")
    show.console.print(_parts(found))
    if found["history"]:
        show.console.print(_history(found))
    for at, path in enumerate(found["paths"], start=1):
        click.echo(f"path {at} (weight {path['weight']:.3f}): {path['words']}")
        for edge in path["edges"]:
            mark = "  [inferred: accepted by a person]" if edge["inferred"] else ""
            click.echo(f"    {edge['head']} --{edge['relation']}--> {edge['tail']}{mark}")
    if not found["paths"]:
        click.echo("no path in the graph leads to what the user had")


def _parts(found: Mapping[str, Any]) -> Table:
    table = Table(title="What the score is made of", title_justify="left")
    table.add_column("part")
    table.add_column("adds", justify="right")
    for part in sorted(found["parts"], key=lambda part: -part["score"]):
        table.add_row(part["words"], f"{part['score']:+.4f}")
    return table


def _history(found: Mapping[str, Any]) -> Table:
    table = Table(title="What of the history carries it", title_justify="left")
    table.add_column("item", no_wrap=True)
    table.add_column("title")
    table.add_column("adds", justify="right")
    for one in found["history"]:
        table.add_row(one["item"], one["title"] or "-", f"{one['adds']:+.4f}")
    return table
