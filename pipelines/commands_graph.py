"""`kgrec graph`: building the graph, and looking at it."""

from __future__ import annotations

from typing import Any

import click

from pipelines.options import common


class BuildUnlessNamed(click.Group):
    """A group whose first word may be a CONFIG: whatever is no subcommand goes to the command `build`."""

    fallback = "build"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `build` in front where no subcommand is named."""
        asks_for_help = bool(args) and args[0] in ctx.help_option_names
        if args and not asks_for_help and args[0] not in self.commands:
            args = [self.fallback, *args]
        return super().parse_args(ctx, args)


@click.group(cls=BuildUnlessNamed, help="Build the knowledge graph (kgrec graph CONFIG), report on it, draw it.")
def graph() -> None:
    """Build the knowledge graph, report on it, draw it."""


@graph.command()
@click.argument("config")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the config.")
@common
def build(config: str, overrides: tuple[str, ...], workspace: str, as_json: bool) -> int:
    """Build the knowledge graph of CONFIG (and what it needs); `kgrec graph CONFIG` is the same."""
    from pipelines.chain import run_config

    return run_config(config, overrides, workspace, until="graph", as_json=as_json)


@graph.command()
@click.argument("config")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the config.")
@common
def update(config: str, overrides: tuple[str, ...], workspace: str, as_json: bool) -> None:
    """Take new triples, entities and items of CONFIG into the promoted version, without training; old rows stand."""
    from kgrec.chain.context import Run
    from kgrec.chain.updating import update_graph
    from kgrec.config import load_config
    from kgrec.workspace import Workspace
    from pipelines import show

    place = Workspace(workspace, must_exist=True)
    with place.hold(f"kgrec graph update {config}"):
        updated = update_graph(Run(load_config(config, overrides), place))
    if as_json:
        show.as_json({"version": updated.version, **updated.facts})
        return
    click.echo(f"version {updated.version} is promoted")
    for name, value in updated.facts.items():
        click.echo(f"  {name.replace('_', ' ')}: {value}")


@graph.command(name="show")
@click.option("--entity", default=None, help="An id, label or title: an item or any other entity.")
@click.option("--hops", type=click.IntRange(1, 4), default=2, show_default=True, help="How far to go from --entity.")
@click.option("--user", default=None, help="With --item: why this user gets it, in place of a neighbourhood.")
@click.option("--item", default=None, help="The item to explain.")
@click.option("--out", required=True, metavar="FILE", help="The HTML file to write.")
@common
def show_graph(
    entity: str | None, hops: int, user: str | None, item: str | None, out: str, workspace: str, as_json: bool
) -> None:
    """Draw what lies around an entity, or why a user gets an item, as one HTML file that needs no network."""
    from pathlib import Path

    from kgrec.chain.graph_view import draw_explanation, draw_neighbourhood
    from kgrec.workspace import Workspace
    from pipelines import show

    place = Workspace(workspace, must_exist=True)
    if entity is not None and user is None and item is None:
        drawn = draw_neighbourhood(place, entity, hops, Path(out))
        said = f"{drawn['entity']}: {drawn['branches']} names within {hops} hops, in {drawn['file']}"
    elif entity is None and user is not None and item is not None:
        drawn = draw_explanation(place, user, item, Path(out))
        said = f"{drawn['title']} for user {user}: {drawn['paths']} paths, in {drawn['file']}"
    else:
        raise click.UsageError("give either --entity, or --user and --item")
    if as_json:
        show.as_json(drawn)
    else:
        click.echo(said)


@graph.command()
@common
def report(workspace: str, as_json: bool) -> None:
    """Report on the graph that was built last: coverage, each relation, hubs, what was merged and found."""
    from kgrec.chain.graph_view import newest_graph
    from kgrec.workspace import Workspace
    from pipelines import show

    view = newest_graph(Workspace(workspace, must_exist=True))
    rows = [] if view.report is None else view.report.to_dicts()
    if as_json:
        show.as_json({"facts": dict(view.facts), "relations": rows})
    else:
        _print_report(view.facts, rows)


@graph.command()
@click.option("--out", required=True, metavar="FILE", help="The CSV file to write.")
@common
def review(out: str, workspace: str, as_json: bool) -> None:
    """Write the links found by name that wait for a person; fill in `verdict` and name the file in the config."""
    from pathlib import Path

    from kgrec.chain.graph_view import write_review
    from kgrec.workspace import Workspace
    from pipelines import show

    written = write_review(Workspace(workspace, must_exist=True), Path(out))
    if as_json:
        show.as_json(written)
    else:
        click.echo(f"{written['links']} links of {written['items']} items to review, in {written['file']}")


def _print_report(facts: Any, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from pipelines.show import console

    table = Table(title="Relations, the largest first; mean (most)", title_justify="left")
    table.add_column("relation", overflow="fold", min_width=18)
    for name in ("triples", "items", "tails/head", "1 tail", "heads/tail"):
        table.add_column(name, justify="right")
    names = {row["relation_row"]: row.get("short", row["id"]) for row in rows}
    for row in rows:
        said = [names[row["relation_row"]]]
        said += [f"  inverse of {names[row['inverse_of']]}"] if row["inverse_of"] is not None else []
        said += [f"  {row['symmetric']:.0%} symmetric"] if row["symmetric"] else []
        table.add_row(
            "\n".join(said), f"{row['triples']:,}", f"{row['items']:.0%}",
            f"{row['fan_out']:.1f} ({row['fan_out_max']})", f"{row['single_tail']:.0%}",
            f"{row['fan_in']:.1f} ({row['fan_in_max']})",
        )  # fmt: skip
    console.print(table)
    for name, value in facts.items():
        if name not in ("triples_per_relation", "hubs"):
            console.print(f"{name.replace('_', ' ')}: {value}", markup=False)
    hubs = ", ".join(f"{hub['name']} ({hub['degree']:,})" for hub in facts.get("hubs", []))
    console.print(f"hubs: {hubs or 'none'}", markup=False)
