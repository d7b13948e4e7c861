"""A workspace with two small versions that answer differently, and the service over it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from kgrec.evaluation.ranking import ExcludeSeen
from kgrec.serving import versions
from kgrec.serving.http import create_app
from kgrec.serving.limits import ServiceConfig
from kgrec.serving.live import LiveVersion
from kgrec.serving.tokens import Tokens
from kgrec.serving.versions import VersionRecord
from kgrec.workspace import Workspace
from tests.serving.small_version import make_version

FIRST_OF_ANN = {"1": "f", "2": "a"}  # version 1 leaves out what ann had, version 2 does not


def make_workspace(folder: Path, promoted: str | None = "1") -> Workspace:
    """Return a workspace with versions 1 and 2, of which one is promoted."""
    place = Workspace(folder)
    for exclude_seen in (ExcludeSeen.ANY, ExcludeSeen.NONE):
        key = make_version(place.store, exclude_seen).key
        versions.register(place, VersionRecord("", "shop", key, "run", "2024-01-01T00:00:00+00:00", True, (), {}))
    if promoted is not None:
        versions.promote(place, promoted, why="test")
    return place


class Client:
    """Asks an application without a socket between; the tests' requests come from this machine."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send one request and return the whole answer."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as one:
                return await one.request(method.upper(), path, **arguments)

        return asyncio.run(send())

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        """Send a GET."""
        return self.request("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        """Send a POST."""
        return self.request("POST", path, **arguments)


def client(place: Workspace, tokens: Tokens | None = None, **settings: Any) -> Client:
    """Return a client of the service over a workspace."""
    live = LiveVersion(place)
    live.look()
    return Client(create_app(live, ServiceConfig(**settings), lambda: tokens))
