"""Commands of the service: `serve`, `token`, `forget`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipelines.options import common

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; beyond loopback: tokens.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option(
    "--tokens", type=_FILE, help="File of token hashes (see `kgrec token`); else $KGREC_TOKENS, else loopback."
)
@click.option("--max-body-bytes", type=click.IntRange(256), help="Largest request body, in bytes.")
@click.option("--requests-per-second", type=click.FloatRange(0, min_open=True), help="Requests a second of one caller.")
@click.option("--burst", type=click.IntRange(1), help="Requests of one caller at once, before the rate counts.")
@click.option("--max-in-flight", type=click.IntRange(1), help="Requests under way at once.")
@click.option("--body-seconds", type=click.FloatRange(0, min_open=True), help="How long a body may take to arrive.")
@click.option("--answer-seconds", type=click.FloatRange(0, min_open=True), help="How long an answer may take.")
@click.option("--drain-seconds", type=click.IntRange(0), help="How long requests may take to end after SIGTERM.")
@click.option("--watch-seconds", type=click.FloatRange(0, min_open=True), help="How often to look for a new version.")
@click.option("--remembered-mb", type=click.IntRange(0), help="Room for lists asked for again; 0 computes each anew.")
@click.option("--threads", type=click.IntRange(1), help="Threads of one search.")
@common
def serve(workspace: str, as_json: bool, **options: Any) -> int:
    """Serve the promoted version over HTTP, and whichever is promoted later."""
    from kgrec.serving.limits import ServiceConfig
    from pipelines.serve import serve as run_service

    given = {name: value for name, value in options.items() if value is not None}
    return run_service(workspace, ServiceConfig(**given), as_json=as_json)


@click.command()
@click.argument("name")
@click.option("--tokens", type=_FILE, required=True, help="File that gets the token's hash; made when it is not there.")
@click.option("--days", type=click.FloatRange(0, min_open=True), help="For how many days it counts; default: for ever.")
@common
def token(name: str, tokens: Path, days: float | None, workspace: str, as_json: bool) -> None:
    """Make a bearer token for NAME: print it once, keep its hash."""
    from pipelines.serve import make_token

    make_token(tokens, name, days, as_json=as_json)


@click.command()
@click.option("--user", required=True, help="The person's id as in the log.")
@common
def forget(user: str, workspace: str, as_json: bool) -> None:
    """Remove a person from tables, features, vectors and versions, and print what was removed."""
    from kgrec.serving.forget import forget as remove
    from kgrec.workspace import Workspace
    from pipelines import show

    place = Workspace(workspace, must_exist=True)
    with place.hold("kgrec forget"):
        found = remove(place, user).as_dict()
    if as_json:
        show.as_json(found)
        return
    for what, things in found.items():
        if isinstance(things, list):
            click.echo(f"{what.replace('_', ' ')}: {len(things)}")
            click.echo("".join(f"  {thing}\n" for thing in things), nl=False)
    click.echo("the next ingest leaves this person out; your own source files and backups are yours to clean")
