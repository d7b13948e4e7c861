"""Copies of versions and reports on MLflow servers: found, read and replaced, when a person is to be forgotten."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from kgrec.tracking.runs import REPORT, WORKSPACE_TAG
from kgrec.tracking.stores import Store, answering, every_page, see_that_it_answers, servers_of, speaking_to
from kgrec.workspace import Workspace

_GIVEN: Final = "artifacts"  # folder of a logged model: what it was logged with


@dataclass(frozen=True)
class Copy:
    """A folder on a server: of a version, or of a run's report. where: what people can find it by."""

    where: str
    _server: str
    _files: Any
    _path: str
    _aside: Path

    def names(self) -> list[str]:
        """Return the names of the files in it."""
        with speaking_to(self._server), answering():
            found = self._files.list_artifacts(self._path)
        return [Path(file.path).name for file in found if not file.is_dir]

    def fetch(self, name: str) -> Path:
        """Return a copy of one of its files, for the time of the block."""
        folder = Path(tempfile.mkdtemp(dir=self._aside))
        with speaking_to(self._server), answering():
            return Path(self._files.download_artifacts(f"{self._path}/{name}", str(folder)))

    def put(self, file: Path) -> None:
        """Write a file into it, over one of the same name."""
        with speaking_to(self._server), answering():
            self._files.log_artifact(str(file), self._path)

    def replace(self, folder: Path | None) -> None:
        """Put a folder in its place; None removes it."""
        with speaking_to(self._server), answering():
            self._files.delete_artifacts(self._path)
            if folder is not None:
                self._files.log_artifacts(str(folder), self._path)


class ServerCopies(AbstractContextManager["ServerCopies"]):
    """What the servers that a workspace ever logged to hold of it; what is fetched goes with the block.

    UnreachableError on entering when one of them does not answer.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._stores = servers_of(workspace)
        self._aside = tempfile.TemporaryDirectory(prefix="kgrec-copies-")

    def __enter__(self) -> ServerCopies:
        for store in self._stores:
            see_that_it_answers(store.uri)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._aside.cleanup()

    def versions(self) -> Iterator[Copy]:
        """Return every copy of a version, those that a killed process left half-written included."""
        for store, client, experiment, run in self._runs():
            wanted = f"source_run_id = '{run}'"
            for model in client.search_logged_models([experiment], filter_string=wanted):
                folder = self._copy(store, model.artifact_location, _GIVEN)
                with speaking_to(store.uri):
                    paths = [file.path for file in folder._files.list_artifacts(_GIVEN)]
                for path in paths:
                    yield self._copy(store, model.artifact_location, path)

    def reports(self) -> Iterator[Copy]:
        """Return the report of every run that logged one."""
        for store, client, _, run in self._runs():
            copy = self._copy(store, client.get_run(run).info.artifact_uri, REPORT)
            if copy.names():
                yield copy

    def _runs(self) -> Iterator[tuple[Store, MlflowClient, str, str]]:
        for store in self._stores:
            client = MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)
            with answering():
                experiments = [str(one.experiment_id) for one in every_page(client.search_experiments)]
                wanted = f"tags.`{WORKSPACE_TAG}` = '{store.owner}'"
                runs = list(every_page(client.search_runs, experiment_ids=experiments, filter_string=wanted))
            for run in runs:
                yield store, client, str(run.info.experiment_id), str(run.info.run_id)

    def _copy(self, store: Store, location: str, path: str) -> Copy:
        with speaking_to(store.uri):
            files = get_artifact_repository(location)
        return Copy(f"{store.uri} {location}/{path}", store.uri, files, path, Path(self._aside.name))
