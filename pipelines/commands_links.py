"""`kgrec links`: missing links that the model proposes, and what people say of them."""

from __future__ import annotations

import click

from pipelines.options import common

STATUSES = ("proposed", "accepted", "rejected")


@click.group(help="Links that the graph lacks: proposed by the model, accepted or rejected by people.")
def links() -> None:
    """Propose, list and judge missing links."""


@links.command()
@click.option("-k", "k", type=click.IntRange(min=1), default=100, show_default=True, help="How many, at most.")
@click.option("--relation", default=None, help="Of one relation alone: its id or its words.")
@common
def propose(k: int, relation: str | None, workspace: str, as_json: bool) -> None:
    """Let the promoted version's model (or the one trained last) name links of items that the graph lacks."""
    from pipelines import links as work

    work.propose(workspace, k, relation, as_json=as_json)


@links.command(name="list")
@click.option("--relation", default=None, help="Of one relation alone: its id or its words.")
@click.option("--status", type=click.Choice(STATUSES), default=None, help="With this status alone.")
@common
def list_links(relation: str | None, status: str | None, workspace: str, as_json: bool) -> None:
    """List the proposals, what people said of them, and how often the model was right, by relation."""
    from pipelines import links as work

    work.listed(workspace, relation, status, as_json=as_json)


def _verdict_command(name: str, verdict: str, text: str) -> None:
    @links.command(name=name, help=text)
    @click.argument("ids", nargs=-1, required=True, metavar="ID...")
    @click.option("--by", default=None, metavar="NAME", help="Who says so; by default the account's name.")
    @click.option("--note", default="", help="Why.")
    @click.option("--change", is_flag=True, help="Replace an earlier verdict.")
    @common
    def judge(ids: tuple[str, ...], by: str | None, note: str, change: bool, workspace: str, as_json: bool) -> None:
        from pipelines import links as work

        work.judge(workspace, ids, verdict, by, note, change=change, as_json=as_json)


_verdict_command("accept", "accepted", "Say that proposed links are true: the next run has them in its graph, marked.")
_verdict_command("reject", "rejected", "Say that proposed links are false: they are not proposed again.")
