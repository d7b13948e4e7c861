"""The work of `kgrec links`, and how it is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table

from kgrec.chain.completing import propose_links
from kgrec.graph.review import ACCEPTED, LinkReview
from kgrec.workspace import Workspace, person
from pipelines import show

_SHOWN = 20


def propose(workspace: str, k: int, relation: str | None, *, as_json: bool) -> None:
    """Propose links, store them and print the best."""
    place = Workspace(workspace, must_exist=True)
    with place.hold("kgrec links propose"):
        found = propose_links(place, k, relation)
    rows = found.proposals.to_dicts()
    if as_json:
        show.as_json({"proposed": len(rows), "new": found.new, **found.facts, "links": rows})
        return
    show.console.print(_table(f"The best of {len(rows)} proposals, {found.new} of them new", rows[:_SHOWN]))
    for name, value in found.facts.items():
        show.console.print(f"{name.replace('_', ' ')}: {value}", markup=False)
    click.echo("judge them: kgrec links accept ID, kgrec links reject ID")


def listed(workspace: str, relation: str | None, status: str | None, *, as_json: bool) -> None:
    """Print the proposals and the precision of each relation."""
    review = LinkReview(Workspace(workspace, must_exist=True).links)
    rows, relations = review.listed(relation, status).to_dicts(), review.precision()
    if as_json:
        show.as_json({"links": rows, "relations": relations})
        return
    if not rows:
        click.echo("no links: kgrec links propose")
        return
    show.console.print(_table(f"{len(rows)} links", rows))
    table = Table(title="How often the model was right", title_justify="left")
    for name in ("relation", "proposed", "accepted", "rejected", "precision", "mean confidence of the judged"):
        table.add_column(name, justify="left" if name == "relation" else "right")
    for one in relations:
        said = ["-" if one[name] is None else f"{one[name]:.2f}" for name in ("precision", "mean_confidence")]
        table.add_row(one["relation_name"], *(str(one[name]) for name in ("proposed", "accepted", "rejected")), *said)
    show.console.print(table)


def judge(
    workspace: str, ids: Sequence[str], verdict: str, by: str | None, note: str, *, change: bool, as_json: bool
) -> None:
    """Write the verdict of a person on links."""
    place = Workspace(workspace, must_exist=True)
    with place.hold(f"kgrec links {verdict}"):
        rows = LinkReview(place.links).judge(ids, verdict, by or person(), note, change=change)
    if as_json:
        show.as_json({"verdicts": [asdict(row) for row in rows]})
        return
    for row in rows:
        click.echo(f"{row.id} {row.verdict} by {row.by} at {row.at}")
    if verdict == ACCEPTED:
        click.echo("the next `kgrec run CONFIG` has them in its graph, marked as accepted")


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("id", "head", "relation", "tail", "confidence", "status"):
        table.add_column(name, no_wrap=name == "id", justify="right" if name == "confidence" else "left")
    for row in rows:
        status = row.get("status", "proposed")
        said = status if row.get("by") is None else f"{status} by {row['by']}, {row['at'][:10]}"
        table.add_row(
            row["id"], row["head_name"], row["relation_name"], row["tail_name"], f"{row['confidence']:.3f}", said
        )
    return table
