"""Where MLflow keeps runs: the workspace's own database, or the server or database that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is the answer's alone
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # tens of lines where stderr is a file

import mlflow
from mlflow.exceptions import MlflowException

from kgrec.artifacts import write_atomically
from kgrec.errors import InputError, Problem, UnreachableError
from kgrec.workspace import Workspace

VARIABLE: Final = "MLFLOW_TRACKING_URI"
_SERVERS: Final = ("http", "https")
_DATABASES: Final = ("sqlite", "postgresql", "mysql", "mssql")
_ANSWER_SECONDS: Final = 10
_QUESTION: Final = "/api/2.0/mlflow/experiments/search?max_results=1"
_LOST: Final = "API request to"  # how MLflow's client begins what it says when a server does not answer
_UNREACHED: Final = "see that it runs (`mlflow server`), or unset MLFLOW_TRACKING_URI to keep runs in the workspace"


@dataclass(frozen=True)
class Store:
    """Where runs go. artifacts: where their files go; None where the server decides.

    owner: on a server, which others may use, the mark of this workspace on what is its own; empty elsewhere.
    """

    uri: str
    artifacts: str | None
    owner: str = ""

    @property
    def is_server(self) -> bool:
        """Say whether it is a server."""
        return bool(self.owner)


def names_server() -> bool:
    """Say whether the environment names a server; nothing is noted of it."""
    return _scheme(os.environ.get(VARIABLE, "").strip()) in _SERVERS


def _scheme(named: str) -> str:
    return urlsplit(named).scheme.split("+")[0]


def store_of(workspace: Workspace) -> Store:
    """Return the store that the environment names, else the workspace's own; InputError for one that is not known.

    Files of runs that a database keeps stay in the workspace; a server keeps them where it keeps its own.
    """
    named, folder = os.environ.get(VARIABLE, "").strip(), workspace.tracking_artifacts.as_uri()
    if not named:
        return Store(f"sqlite:///{workspace.tracking_database}", folder)
    scheme = _scheme(named)
    if scheme in _SERVERS:
        server = named.rstrip("/")
        return Store(server, None, _note(workspace, server))
    if scheme in _DATABASES:
        return Store(named, folder)
    remedy = f"name a server (http://host:5000) or a database (postgresql+psycopg://...), or unset {VARIABLE}"
    raise InputError(Problem(VARIABLE, "neither a server nor a database of MLflow", remedy, example=scheme or None))


def see_that_it_answers(server: str) -> None:
    """Return when a server answers or may; UnreachableError at once when not: MLflow's client tries for minutes."""
    try:
        with urllib.request.urlopen(f"{server}{_QUESTION}", timeout=_ANSWER_SECONDS):  # noqa: S310  http by `store_of`
            return
    except urllib.error.HTTPError as fault:  # what else it has against an unnamed asker, its client may not meet
        if fault.code == 403 and b"Host header" in fault.read():
            remedy = "start it with --allowed-hosts that name the host and port of this address"
            raise InputError(Problem(VARIABLE, "the MLflow server refuses this name of it", remedy)) from None
    except OSError as fault:
        reason = getattr(fault, "reason", fault)
        raise UnreachableError(Problem(VARIABLE, f"the MLflow server does not answer: {reason}", _UNREACHED)) from None


@contextmanager
def speaking_to(uri: str) -> Iterator[None]:
    """Let MLflow's functions, which know one store a process, speak to this one, and leave the process as it was.

    They write the address into the environment, where the next workspace of this process would take it for the user's.
    """
    before = os.environ.get(VARIABLE)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_registry_uri("")
        mlflow.set_tracking_uri("")
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


@contextmanager
def answering() -> Iterator[None]:
    """Turn what MLflow says of a server that went away into UnreachableError: a scheduled run tries again then."""
    try:
        yield
    except MlflowException as fault:
        if not str(fault).startswith(_LOST):
            raise
        raise UnreachableError(Problem(VARIABLE, "the MLflow server stopped answering", _UNREACHED)) from fault


def every_page(search: Any, **wanted: Any) -> Iterator[Any]:
    """Return what all pages of a search of MLflow's client hold."""
    page = search(**wanted)
    yield from page
    while page.token:
        page = search(**wanted, page_token=page.token)
        yield from page


def stores_of(workspace: Workspace) -> list[Store]:
    """Return where runs of this workspace may be: its own database if it has one, one that the environment names, and
    every server that it ever logged to; nothing is made.
    """
    folder, named = workspace.tracking_artifacts.as_uri(), os.environ.get(VARIABLE, "").strip()
    own = Store(f"sqlite:///{workspace.tracking_database}", folder)
    databases = [own] if workspace.tracking_database.exists() else []
    if _scheme(named) in _DATABASES and named != own.uri:
        databases.append(Store(named, folder))
    return [*databases, *servers_of(workspace)]


def servers_of(workspace: Workspace) -> list[Store]:
    """Return the servers that hold copies from this workspace, the first one first."""
    noted = _noted(workspace)
    return [Store(server, None, noted.owner) for server in noted.servers]


@dataclass(frozen=True)
class _Noted:
    owner: str
    servers: tuple[str, ...]


def _note(workspace: Workspace, server: str) -> str:
    """Remember a server, so that what it holds is found when it must go; return this workspace's mark on it."""
    noted = _noted(workspace)
    if server not in noted.servers:
        told = {"workspace": noted.owner, "servers": [*noted.servers, server]}
        write_atomically(workspace.tracking_servers, (json.dumps(told, indent=1) + "\n").encode())
    return noted.owner


def _noted(workspace: Workspace) -> _Noted:
    if not workspace.tracking_servers.exists():
        return _Noted(uuid.uuid4().hex, ())
    told = json.loads(workspace.tracking_servers.read_text(encoding="utf-8"))
    return _Noted(told["workspace"], tuple(told["servers"]))
