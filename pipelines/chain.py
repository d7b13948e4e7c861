"""Commands that go through the stages: the coat over `kgrec.stages`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click

from kgrec.workspace import Workspace
from pipelines import show
from pipelines.environment import prepare_environment
from pipelines.server import TemporaryServer

PICTURE: Final = "graph.html"


def run_config(
    config: str, overrides: tuple[str, ...], workspace: str, *, until: str, as_json: bool,
    launch: Mapping[str, Any] = MappingProxyType({}),
) -> int:  # fmt: skip
    """Run the chain up to a stage as a Prefect flow, print what came of it, return the exit status."""
    started = time.perf_counter()
    place, reports = Workspace(workspace), dict[str, Any]()
    with place.hold(f"kgrec {until if until != 'promote' else 'run'} {config}"):
        prepare_environment(place)
        with TemporaryServer(place.prefect_home) as server:  # it starts while this process imports what it needs
            from feature_store.catalog import VIEWS
            from kgrec.chain.context import Run
            from kgrec.config import load_config
            from kgrec.stages import RunResult
            from kgrec.training.distributed.launch import Launch
            from pipelines.progress import ProgressPainter

            chosen, loaded = Launch.model_validate(launch), load_config(config, overrides)
            from pipelines.train import run_flow

            with ProgressPainter() as painter:
                server.wait()
                result = run_flow(Run(loaded, place, VIEWS, painter, reports, launch=chosen), until)
    if not isinstance(result, RunResult):
        _print_artifact(until, result, reports, as_json=as_json)
        return 0
    answer = result.as_dict()
    if as_json:
        show.as_json(answer)
    else:
        show.run_result(answer)
        if result.released.promoted:
            show_example(place, result.released.report)
        click.echo(f"wall clock: {time.perf_counter() - started:.1f} s", file=sys.stdout)
    return 0 if result.released.verdict.passed else 3


def _print_artifact(until: str, artifact: Any, reports: Any, *, as_json: bool) -> None:
    stages = {
        name: {"seconds": r.seconds, "cached": r.cached, "peak_rss_mb": r.peak_rss_mb} for name, r in reports.items()
    }
    if artifact is None:
        answer: dict[str, Any] = {"stage": until, "stages": stages}
    else:
        answer = {"stage": until, "path": str(artifact.path), "digest": artifact.digest, "facts": dict(artifact.facts),
                  "stages": stages}  # fmt: skip
    if artifact is not None and until == "evaluate":
        from kgrec.chain.details import read_details
        from kgrec.chain.release import read_figures

        metrics, baselines = read_figures(artifact)
        answer |= {"metrics": metrics, "baselines": baselines, "evaluation": read_details(artifact)}
    if as_json:
        show.as_json(answer)
        return
    click.echo(f"{until}: {answer.get('path', 'nothing to do for this data')}")
    if "metrics" in answer:
        show.figures(answer)
    for name, value in answer.get("facts", {}).items():
        click.echo(f"  {name}: {value}")


def show_example(place: Workspace, report: Path) -> None:
    """Print ten recommendations with titles and reasons for the first user that training saw, and link a picture."""
    from kgrec.chain.graph_view import draw_neighbourhood
    from kgrec.serving.recommend import load
    from kgrec.serving.standing import Standing

    version = load(place.shown)
    user = next((u for u in version.users.entries if version.standing(u) is Standing.TRAINED), None)
    if user is None:
        return
    answer = version.recommend([user], k=10, explain=True).to_dicts()
    click.echo()
    show.items(f"Ten recommendations for user {user}", answer)
    if answer and version.paths.has_edges:
        picture = report.parent / PICTURE
        if not picture.exists():
            draw_neighbourhood(place, answer[0]["item"], 2, picture)
        click.echo(f"what the graph knows around {answer[0]['title'] or answer[0]['item']}: {picture}")
