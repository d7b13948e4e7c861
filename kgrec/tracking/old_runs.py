"""The runs of a workspace in MLflow, wherever they are: listed, and removed when retention lets them go.

MLflow's client marks a run as deleted and keeps its rows and files; the files go here, the rows by `mlflow gc`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from kgrec.tracking.runs import KEY_TAG, WORKSPACE_TAG
from kgrec.tracking.stores import Store, answering, every_page, see_that_it_answers, speaking_to, stores_of
from kgrec.workspace import Workspace


@dataclass(frozen=True)
class LoggedRun:
    """One run in MLflow. name: of its configs; parent: the run it is part of, or empty; last: when it ended (UTC)."""

    run_id: str
    name: str
    parent: str
    last: datetime
    _store: Store
    _files: str
    _place: Path

    def folders(self) -> list[Path]:
        """Return what it keeps in the workspace: its own files, and those of its logged models."""
        found = [self._folder(self._files).parent, *(self._folder(where) for _, where in self._models())]
        inside = [path for path in found if path.is_relative_to(self._place) and path != self._place]
        return [] if self._store.is_server else [path for path in inside if path.is_dir()]

    def remove(self) -> None:
        """Remove its files, then its models, then the run itself: one that a killed process left is listed again."""
        models, client = self._models(), _client(self._store)
        for folder in self.folders():
            shutil.rmtree(folder)
        with speaking_to(self._store.uri), answering():
            for where in (self._files, *(where for _, where in models)) if self._store.is_server else ():
                files: Any = get_artifact_repository(where)
                files.delete_artifacts()
            for model, _ in models:
                client.delete_logged_model(model)
            client.delete_run(self.run_id)

    def _models(self) -> list[tuple[str, str]]:
        client = _client(self._store)
        with answering():
            experiment = client.get_run(self.run_id).info.experiment_id
            wanted = f"source_run_id = '{self.run_id}'"
            found = list(every_page(client.search_logged_models, experiment_ids=[experiment], filter_string=wanted))
        return [(one.model_id, one.artifact_location) for one in found]

    def _folder(self, address: str) -> Path:
        """Return the folder of this workspace for an address, also where that was noted before the workspace moved."""
        inner = unquote(address).rstrip("/").rpartition(f"/{self._place.name}/")[2]
        return (self._place / inner).resolve()


def logged_runs(workspace: Workspace) -> list[LoggedRun]:
    """Return every run of a workspace that MLflow lists; on a server, those with the workspace's mark.

    UnreachableError when one of the servers does not answer.
    """
    stores = stores_of(workspace)
    for store in stores:
        if store.is_server:
            see_that_it_answers(store.uri)
    return [run for store in stores for run in _listed(workspace, store)]


def _listed(workspace: Workspace, store: Store) -> Iterator[LoggedRun]:
    client, folder = _client(store), workspace.tracking_artifacts
    own = store.uri == f"sqlite:///{workspace.tracking_database}"
    wanted = f"tags.`{WORKSPACE_TAG}` = '{store.owner}'" if store.is_server else f"tags.`{KEY_TAG}` != ''"
    with answering():
        names = {str(one.experiment_id): one.name for one in every_page(client.search_experiments)}
        runs = list(every_page(client.search_runs, experiment_ids=list(names), filter_string=wanted)) if names else []
    for run in runs:
        if own or store.is_server or run.info.artifact_uri.startswith(f"{folder.as_uri()}/"):
            yield LoggedRun(
                run.info.run_id, names[run.info.experiment_id], run.data.tags.get("mlflow.parentRunId", ""),
                _last(run), store, run.info.artifact_uri, folder,
            )  # fmt: skip


def _last(run: Run) -> datetime:
    return datetime.fromtimestamp((run.info.end_time or run.info.start_time) / 1000, UTC)


def _client(store: Store) -> MlflowClient:
    return MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)
