"""Commands that judge beyond one run."""

from __future__ import annotations

import click

from pipelines.options import common, overrides_option


@click.command()
@click.argument("config")
@click.option("--arms", default="full,kg_off,kg_shuffled", show_default=True, metavar="A,B,...",
              help="What to compare, the reference first: full, kg_off, kg_shuffled, click_only, conversion_only, "
              "kg_only, balancing=NAME, sharing=NAME.")  # fmt: skip
@click.option("--seeds", default=3, show_default=True, help="How often each arm is trained.")
@overrides_option
@common
def compare(config: str, arms: str, seeds: int, overrides: tuple[str, ...], workspace: str, as_json: bool) -> int:
    """Compare CONFIG with itself under controls: what the graph is worth, and learning tasks together."""
    from pipelines.compare import compare_config

    return compare_config(config, arms, seeds, overrides, workspace, as_json=as_json)


@click.command()
@click.argument("config")
@click.option("--trials", type=click.IntRange(min=1), help="Trials in all, earlier ones included.")
@overrides_option
@common
def search(config: str, trials: int | None, overrides: tuple[str, ...], workspace: str, as_json: bool) -> int:
    """Search over settings of CONFIG on validation; the test part is never looked at. A killed search goes on."""
    from pipelines.search import search_over

    return search_over(config, trials, overrides, workspace, as_json=as_json)
