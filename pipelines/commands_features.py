"""`kgrec features`: computing features, reading the tables of former runs, handing them to Feast."""

from __future__ import annotations

from typing import Any

import click

from pipelines.commands_graph import BuildUnlessNamed
from pipelines.options import common, overrides_option


@click.group(cls=BuildUnlessNamed, help="Compute point-in-time features (kgrec features CONFIG), read and export them.")
def features() -> None:
    """Compute point-in-time features, read and export them."""


@features.command()
@click.argument("config")
@overrides_option
@common
def build(config: str, overrides: tuple[str, ...], workspace: str, as_json: bool) -> int:
    """Compute the features of CONFIG (and what they need); `kgrec features CONFIG` is the same."""
    from pipelines.chain import run_config

    return run_config(config, overrides, workspace, until="features", as_json=as_json)


@features.command()
@common
def tables(workspace: str, as_json: bool) -> None:
    """List the feature tables that the workspace keeps, and the runs that were trained on each."""
    from kgrec.features.of_runs import list_tables
    from kgrec.workspace import Workspace
    from pipelines import show

    found = list_tables(Workspace(workspace, must_exist=True))
    if as_json:
        show.as_json({"tables": found})
        return
    for one in found:
        runs = ", ".join(one["runs"]) or "no finished run"
        click.echo(f"{one['name']} ({one['backend']}) {one['version']}  {one['written']}  {one['rows']:,} rows  {runs}")
    if not found:
        click.echo("no feature table: `kgrec features CONFIG` makes one")


@features.command()
@click.option("--out", required=True, metavar="FILE", help="The Parquet file to write.")
@click.option("--run", "run_id", metavar="ID", help="The id of a training run: the table that it was trained on.")
@click.option("--name", metavar="NAME", help="The name of the config, where the workspace has several.")
@click.option("--version", metavar="VERSION", help="A version, as `kgrec features tables` lists them.")
@click.option("--at", metavar="T", help="What was the latest at an instant, as 2026-05-01 or an ISO instant (UTC).")
@common
def read(
    out: str, run_id: str | None, name: str | None, version: str | None, at: str | None, workspace: str, as_json: bool
) -> None:
    """Read a feature table again, the latest or a former one, as a Parquet file."""
    if run_id is not None and (name or version or at):
        raise click.UsageError("--run names its table by itself, without --name, --version and --at")
    from kgrec.features.of_runs import read_features
    from pipelines import show
    from pipelines.monitor import instant

    rows = read_features(
        workspace, run=run_id, name=name, version=version, at=None if at is None else instant("--at", at)
    )
    rows.write_parquet(out)
    told: dict[str, Any] = {"file": out, "rows": rows.height, "columns": rows.columns}
    if as_json:
        show.as_json(told)
    else:
        click.echo(f"{rows.height:,} rows and {rows.width} columns, in {out}")


@features.command()
@click.argument("config")
@click.option("--feast", "folder", required=True, metavar="DIR", help="The folder of the Feast repository.")
@overrides_option
@common
def export(config: str, folder: str, overrides: tuple[str, ...], workspace: str, as_json: bool) -> None:
    """Write the features of CONFIG for Feast: definitions that `feast apply` takes, and their Parquet sources."""
    from pathlib import Path

    from feature_store.catalog import VIEWS
    from kgrec.chain.context import Run
    from kgrec.chain.feature_export import export_to_feast
    from kgrec.config import load_config
    from kgrec.workspace import Workspace
    from pipelines import show

    loaded, place = load_config(config, overrides), Workspace(workspace)
    with place.hold(f"kgrec features export {config}"):
        told = export_to_feast(Run(loaded, place, VIEWS), Path(folder))
    if as_json:
        show.as_json(told)
        return
    click.echo(f"{len(told['views'])} views, {told['rows']:,} rows in {folder}; up to {told['until']}")
    for name, why in told["left_out"].items():
        click.echo(f"  left out: {name}: {why}")
    click.echo(f"next: cd {folder} && feast apply && feast materialize-incremental {told['until']}")


@features.command()
@click.argument("config")
@overrides_option
@common
def update(config: str, overrides: tuple[str, ...], workspace: str, as_json: bool) -> None:
    """Bring the features of CONFIG by day and their online table up to date; only days that changed are computed."""
    from feature_store.catalog import VIEWS
    from kgrec.chain.context import Run
    from kgrec.chain.feature_export import update_days
    from kgrec.config import load_config
    from kgrec.workspace import Workspace
    from pipelines import show

    loaded, place = load_config(config, overrides), Workspace(workspace)
    with place.hold(f"kgrec features update {config}"):
        told = update_days(Run(loaded, place, VIEWS))
    if as_json:
        show.as_json(told)
        return
    span = f": {told['computed'][0]} to {told['computed'][-1]}" if told["computed"] else ""
    click.echo(f"{len(told['computed'])} days computed{span}, {told['reused']} reused; snapshot {told['snapshot']}")
    click.echo(f"online table: {told['online']}")
    for name, why in told["left_out"].items():
        click.echo(f"  left out: {name}: {why}")
