"""The command line. Heavy modules load late, inside the commands, so that `kgrec --help` is quick."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import click

from pipelines import (
    commands_evaluation,
    commands_features,
    commands_graph,
    commands_links,
    commands_operations,
    commands_service,
)
from pipelines.options import common, launched, overrides_option

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=_CONTEXT)
@click.version_option(package_name="kgrec", message="kgrec %(version)s")
@click.option("--verbose", is_flag=True, help="Show log lines on stderr.")
def main(verbose: bool) -> None:
    """Take an interaction log and an item knowledge graph to a tested, promoted, explainable recommender."""
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def _chain_command(name: str, until: str, text: str, options: Callable[..., Any] = lambda command: command) -> None:
    """Add a command that runs the chain up to one stage."""

    @main.command(name=name, help=text)
    @click.argument("config")
    @overrides_option
    @options
    @common
    def stage(config: str, overrides: tuple[str, ...], workspace: str, as_json: bool, **launch: Any) -> int:
        from pipelines.chain import run_config

        return run_config(config, overrides, workspace, until=until, as_json=as_json, launch=launch)


_chain_command(
    "run", "promote", "Run the whole chain: ingest, features, graph, train, evaluate, index, promote.", launched
)
_chain_command("ingest", "ingest", "Read and check the data.")
main.add_command(commands_features.features)
main.add_command(commands_graph.graph)
main.add_command(commands_links.links)
_chain_command("train", "train", "Train the model (and what it needs).", launched)
_chain_command("index", "index", "Build the nearest-neighbour index (and what it needs).")


@main.command()
@click.argument("config", required=False)
@click.option("--recommendations", metavar="FILE", help="A system's table: user, item, score or rank.")
@click.option("--model", metavar="VERSION", help='A stored version ("promoted" is the one that is served).')
@click.option("--truth", metavar="FILE", help="Relevant items: user, item.")
@click.option("--k", "lengths", default="10,20", show_default=True, help="List lengths, comma-separated.")
@overrides_option
@common
def evaluate(
    config: str | None, recommendations: str | None, model: str | None, truth: str | None, lengths: str,
    overrides: tuple[str, ...], workspace: str, as_json: bool,
) -> int:  # fmt: skip
    """Judge the model of CONFIG; or a table of --recommendations by --truth; or a stored --model by either."""
    from pipelines.evaluate import evaluate_files, evaluate_on_config, evaluate_version

    if model is not None:
        if recommendations is not None or (config is not None and truth is not None):
            raise click.UsageError("--model goes with CONFIG or with --truth, and without --recommendations")
        if config is not None:
            return evaluate_on_config(config, overrides, workspace, model, as_json=as_json)
        return evaluate_version(workspace, model, truth, lengths, as_json=as_json)
    if recommendations is not None or truth is not None:
        return evaluate_files(recommendations, truth, lengths, as_json=as_json)
    if config is None:
        raise click.UsageError("name a CONFIG, or both --recommendations and --truth")
    from pipelines.chain import run_config

    return run_config(config, overrides, workspace, until="evaluate", as_json=as_json)


@main.command()
@click.option("--user", required=True, help="The user's id as in the log.")
@click.option("-k", "k", default=10, show_default=True, help="How many items.")
@click.option("--explain", is_flag=True, help="Add a reason to each item.")
@common
def recommend(user: str, k: int, explain: bool, workspace: str, as_json: bool) -> None:
    """Show the top items of the promoted version for a user; items the user had are left out."""
    from pipelines import ask

    ask.recommend(workspace, user, k, explain=explain, as_json=as_json)


@main.command()
@click.option("--item", required=True, help="The item's id as in the log.")
@click.option("-k", "k", default=10, show_default=True, help="How many items.")
@common
def similar(item: str, k: int, workspace: str, as_json: bool) -> None:
    """Show the nearest items of an item."""
    from pipelines import ask

    ask.similar(workspace, item, k, as_json=as_json)


@main.command()
@click.option("--user", required=True, help="The user's id as in the log.")
@click.option("--item", required=True, help="The item's id as in the log.")
@common
def explain(user: str, item: str, workspace: str, as_json: bool) -> None:
    """Tell why an item has its score for a user: parts of the score, history, paths in the graph."""
    from pipelines import explain as work

    work.explain(workspace, user, item, as_json=as_json)


@main.command()
@common
def versions(workspace: str, as_json: bool) -> None:
    """List what is and was served, with the gate's verdicts."""
    from pipelines import ask

    ask.list_versions(workspace, as_json=as_json)


@main.command()
@click.argument("version")
@click.option("--force", is_flag=True, help="Serve it although the gate refused it.")
@common
def promote(version: str, force: bool, workspace: str, as_json: bool) -> None:
    """Serve VERSION from now on; exit status 3 when the gate refused it."""
    from pipelines import ask

    ask.promote(workspace, version, force=force, as_json=as_json)


@main.command()
@common
def rollback(workspace: str, as_json: bool) -> None:
    """Serve again what was served before."""
    from pipelines import ask

    ask.rollback(workspace, as_json=as_json)


@main.group()
def data() -> None:
    """Demo data."""


@data.command(name="get")
@click.argument("name")
@common
def data_get(name: str, workspace: str, as_json: bool) -> None:
    """Fetch a demo dataset into the user's cache; the known one is ml-100k."""
    from kgrec.data.datasets import DATASETS, get_dataset
    from pipelines import show

    folder = get_dataset(name, lambda text: click.echo(text, err=True))
    tables = [str(folder / table) for table in DATASETS[name].tables]
    if as_json:
        show.as_json({"name": name, "folder": str(folder), "tables": tables, "terms": DATASETS[name].terms})
    else:
        click.echo("\n".join(tables))


@main.command()
@common
def doctor(workspace: str, as_json: bool) -> int:
    """Check the installation and the workspace; each fault comes with its remedy."""
    from pipelines.doctor import examine

    return examine(workspace, as_json=as_json)


for _command in (
    commands_service.serve, commands_service.token, commands_service.forget, commands_evaluation.compare,
    commands_evaluation.search,
    commands_operations.deploy, commands_operations.monitor, commands_operations.prune,
):  # fmt: skip
    main.add_command(_command)
