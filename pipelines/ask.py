"""Commands that ask or switch versions."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import click

from kgrec.errors import GateRefusedError, UnreachableError
from kgrec.serving import versions
from kgrec.serving.recommend import load
from kgrec.serving.standing import Standing
from kgrec.workspace import Workspace
from pipelines import show

logger = logging.getLogger(__name__)

_FALLBACK = "this user is unknown or has no history: showing what is most popular"


def recommend(workspace: str, user: str, k: int, *, explain: bool, as_json: bool) -> None:
    """Print the top items of a user."""
    version = load(workspace)
    standing = version.standing(user)
    rows = version.recommend([user], k, explain=explain).drop("user").to_dicts()
    fallback = "popularity" if standing is Standing.POPULARITY else None
    if as_json:
        answer = {"version": version.number, "user": user, "based_on": standing.value, "items": rows}
        show.as_json(answer | ({"fallback": fallback} if fallback else {}))
        return
    if fallback:
        click.echo(_FALLBACK, err=True)
    show.items(f"Version {version.number}, for user {user}", rows)


def similar(workspace: str, item: str, k: int, *, as_json: bool) -> None:
    """Print the nearest items of an item."""
    version = load(workspace)
    rows = version.similar([item], k).drop("item").rename({"neighbour": "item"}).to_dicts()
    if as_json:
        show.as_json({"version": version.number, "item": item, "items": rows})
        return
    show.items(f"Version {version.number}, nearest to {version.title_of(item)}", rows)


def list_versions(workspace: str, *, as_json: bool) -> None:
    """Print all versions and, as JSON, the audit lines too."""
    place = Workspace(workspace, must_exist=True)
    registry = versions.read_registry(place)
    rows = [asdict(record) | {"serving": record.version == registry.promoted} for record in registry.versions]
    if as_json:
        show.as_json({"promoted": registry.promoted, "versions": rows, "audit": versions.read_audit(place.audit)})
    else:
        show.version_list(rows)


def promote(workspace: str, version: str, *, force: bool, as_json: bool) -> None:
    """Serve a version; GateRefusedError when its gate said no and nobody insists."""
    place = Workspace(workspace, must_exist=True)
    record = versions.require(versions.read_registry(place), version)
    if not record.gate_passed and not force:
        raise GateRefusedError([*record.gate_reasons, f"to serve it all the same: kgrec promote {version} --force"])
    with place.hold(f"kgrec promote {version}"):
        why = "by hand" if record.gate_passed else "by hand, although the gate refused it"
        _switched(place, versions.promote(place, version, why=why), as_json=as_json)


def rollback(workspace: str, *, as_json: bool) -> None:
    """Serve what was served before."""
    place = Workspace(workspace, must_exist=True)
    with place.hold("kgrec rollback"):
        _switched(place, versions.rollback(place, why="by hand"), as_json=as_json)


def _switched(place: Workspace, registry: versions.Registry, *, as_json: bool) -> None:
    from kgrec.tracking import Tracking

    served = str(registry.promoted)
    try:
        Tracking(place).set_promoted(versions.require(registry, served).name, served)
    except UnreachableError as fault:  # what is served has changed already, and MLflow only mirrors it
        logger.warning("MLflow's alias stays where it was: %s", fault)
    answer: dict[str, Any] = {"promoted": served, "served_before": list(registry.served_before)}
    if as_json:
        show.as_json(answer)
    else:
        click.echo(f"version {served} is served now")
