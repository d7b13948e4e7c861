"""`kgrec compare`: the coat over `kgrec.chain.comparison`, a Prefect flow with a task for every step of every arm."""

from __future__ import annotations

import time

import click

from kgrec.workspace import Workspace
from pipelines import show
from pipelines.environment import prepare_environment
from pipelines.server import TemporaryServer


def compare_config(
    config: str, arms: str, seeds: int, overrides: tuple[str, ...], workspace: str, *, as_json: bool
) -> int:  # fmt: skip
    """Compare the arms, print what came of it, return the exit status."""
    started = time.perf_counter()
    from kgrec.chain.arms import read_arms
    from kgrec.config import load_config

    loaded = load_config(config, overrides)
    chosen = read_arms(arms, seeds, loaded.config)
    place = Workspace(workspace)
    with place.hold(f"kgrec compare {config}"):
        prepare_environment(place)
        with TemporaryServer(place.prefect_home) as server:  # it starts while this process imports what it needs
            from feature_store.catalog import VIEWS
            from kgrec.chain.comparison import compare_arms
            from kgrec.chain.context import Run
            from pipelines import train
            from pipelines.progress import ProgressPainter

            with ProgressPainter() as painter:
                server.wait()
                context = Run(loaded, place, VIEWS, painter)
                answer = train.as_flow(
                    f"kgrec-compare-{loaded.config.name}", lambda call: compare_arms(context, chosen, seeds, call)
                )
    if as_json:
        show.as_json(answer)
    else:
        from pipelines.show_comparison import show_comparison

        show_comparison(answer)
        click.echo(f"wall clock: {time.perf_counter() - started:.1f} s")
    return 0
