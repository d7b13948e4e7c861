"""Removes what [retention] lets go: on a command, and at the end of a scheduled run."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from kgrec.config import load_config
from kgrec.serving.pruning import prune
from kgrec.workspace import Workspace
from pipelines import show


def prune_config(config: str, overrides: tuple[str, ...], workspace: str, *, only_tell: bool, as_json: bool) -> int:
    """Remove, or with only_tell say, what may go; InputError where there is no such workspace."""
    policy, place = load_config(config, overrides).config.retention, Workspace(workspace, must_exist=True)
    with place.hold("kgrec prune"):
        found = prune(place, policy, now=datetime.now(UTC), only_tell=only_tell).as_dict()
    if as_json:
        show.as_json(found)
        return 0
    for what, things in found.items():
        if isinstance(things, list):
            click.echo(f"{what.replace('_', ' ')}: {len(things)}")
            click.echo("".join(f"  {thing}\n" for thing in things), nl=False)
    click.echo(f"{'would free' if only_tell else 'freed'} {found['freed_mb']:,.1f} MB")
    return 0
