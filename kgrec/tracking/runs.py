"""Runs in MLflow: parameters, figures over time, data and files; registered versions and which is promoted.

Everything is written so that it can be repeated: a run is found again by its key, so a process that was killed
half-way through logging continues the same MLflow run.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from kgrec.errors import KgrecError
from kgrec.tracking.models import log_model
from kgrec.tracking.stores import answering, see_that_it_answers, store_of
from kgrec.workspace import Workspace, person

KEY_TAG: Final = "kgrec.key"
VERSION_TAG: Final = "kgrec.version"
MODEL_TAG: Final = "kgrec.model"
WORKSPACE_TAG: Final = "kgrec.workspace"
ALIAS: Final = "promoted"
REPORT: Final = "report"
_PARAM_LENGTH: Final = 500
_BATCH: Final = 900

_P = ParamSpec("_P")
_T = TypeVar("_T")

logger = logging.getLogger(__name__)


def _said(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a method say in kgrec's words that the server went away."""

    @wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with answering():
            return method(*args, **kwargs)

    return call


@dataclass(frozen=True)
class RunRecord:
    """What one run tells MLflow. `history` is one mapping of figures per epoch, the first epoch first."""

    key: str
    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    history: Sequence[Mapping[str, float]]
    dataset_name: str
    dataset_digest: str
    dataset_profile: Mapping[str, Any]
    tags: Mapping[str, str]


class Tracking:
    """The MLflow store of a workspace: its own sqlite and folder, or the server that MLFLOW_TRACKING_URI names.

    UnreachableError, of the constructor and of every method, when a server does not answer.
    """

    def __init__(self, workspace: Workspace) -> None:
        if not hasattr(mlflow, "__version__"):
            raise KgrecError(
                "`import mlflow` found a folder of that name instead of the package\n"
                "  remedy:  remove mlflow/__init__.py, or `pip install mlflow`"
            )
        self._store = store_of(workspace)
        self.uri = self._store.uri
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        if self._store.is_server:
            see_that_it_answers(self.uri)
        elif self.uri == f"sqlite:///{workspace.tracking_database}":
            _make_database(workspace.tracking_database)
        self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @_said
    def open_run(self, key: str, name: str, *, label: str | None = None, parent: str | None = None) -> str:
        """Return the id of the MLflow run with this key, made now when there is none.

        label: what people see beside the key, default the name. parent: the id of the run that this one is part of.
        """
        experiment_id = self._experiment(name)
        found = self._find(experiment_id, key)
        if found is not None:
            return str(found.info.run_id)
        tags = {KEY_TAG: key, "mlflow.runName": f"{label or name}-{key[:8]}"} | self._mark
        tags |= {"mlflow.parentRunId": parent} if parent is not None else {}
        run = self._client.create_run(experiment_id, tags=tags)
        return str(run.info.run_id)

    @_said
    def log_run(
        self, run_id: str, record: RunRecord, files: Path | None = None, model_id: str | None = None
    ) -> None:  # fmt: skip
        """Log parameters, figures (per epoch and final), the dataset and a folder of files; repeating it is safe.

        model_id: the logged model (see `log_version`) whose figures the final ones are, too.
        """
        params = [Param(key, text[:_PARAM_LENGTH]) for key, text in sorted(_flat(record.params))]
        for start in range(0, len(params), 90):
            self._client.log_batch(run_id, params=params[start : start + 90])
        started = self._client.get_run(run_id).info.start_time
        metrics = [
            Metric(_metric_name(name), float(value), started + step, step)
            for step, epoch in enumerate(record.history)
            for name, value in sorted(epoch.items())
        ]
        last = started + len(record.history)
        metrics += [
            Metric(_metric_name(name), float(value), last, 0, model_id=model_id)
            for name, value in sorted(record.metrics.items())
        ]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in sorted(record.tags.items())])
        profile = json.dumps(dict(record.dataset_profile), default=str)
        dataset = Dataset(record.dataset_name, record.dataset_digest[:36], "kgrec", json.dumps({}), profile=profile)
        self._client.log_inputs(run_id, [DatasetInput(dataset)])
        if files is not None:
            self._client.log_artifacts(run_id, str(files), REPORT)

    @_said
    def log_version(self, run_id: str, name: str, version: str, folder: Path) -> str | None:
        """Log a version as a model from code, register and tag it with kgrec's own number; return the model's id."""
        found = self._registered(name, version)
        if found is not None:
            return found.tags.get(MODEL_TAG)  # MLflow's search leaves the id out
        experiment_id = str(self._client.get_run(run_id).info.experiment_id)
        number, model_id = log_model(self.uri, run_id, experiment_id, name, folder)
        tags = self._mark | {MODEL_TAG: model_id, VERSION_TAG: version}  # the number last: then it counts as done
        for tag, value in tags.items():
            self._client.set_model_version_tag(name, number, tag, value)
        return model_id

    @_said
    def finish(self, run_id: str) -> None:
        """Say that a run is over."""
        self._client.set_terminated(run_id, "FINISHED")

    @_said
    def set_promoted(self, name: str, version: str) -> None:
        """Point the alias `promoted` of the registered model at a version of kgrec; tags say who served what when."""
        number = self._number(name, version)
        if number is None:
            logger.warning("version %s of %s is not registered in MLflow; its alias was not moved", version, name)
            return
        now = datetime.now(UTC).isoformat("T", "seconds")
        before = self._aliased(name)
        if before == number:
            return
        if before is not None:
            self._client.set_model_version_tag(name, before, "kgrec.served_until", now)
        self._client.set_registered_model_alias(name, ALIAS, number)
        for tag, value in (("kgrec.served_since", now), ("kgrec.served_by", person())):
            self._client.set_model_version_tag(name, number, tag, value)

    @property
    def _mark(self) -> dict[str, str]:
        return {WORKSPACE_TAG: self._store.owner} if self._store.is_server else {}

    def _tagged(self, tags: Mapping[str, str]) -> str:
        return " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in {**tags, **self._mark}.items())

    def _aliased(self, name: str) -> str | None:
        try:
            return str(self._client.get_model_version_by_alias(name, ALIAS).version)
        except MlflowException:
            return None

    @_said
    def unregister(self, name: str, version: str) -> None:
        """Take a version of kgrec from MLflow's list of models; its run stays. Repeating it is safe."""
        number = self._number(name, version)
        if number is not None:
            self._client.delete_model_version(name, number)

    @_said
    def model_uri(self, name: str, version: str) -> str:
        """Return the URI under which MLflow loads a version."""
        return f"models:/{name}/{self._number(name, version)}"

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=self._store.artifacts))

    def _find(self, experiment_id: str, key: str) -> Run | None:
        wanted = self._tagged({KEY_TAG: key})
        runs = self._client.search_runs([experiment_id], filter_string=wanted, max_results=1)
        return runs[0] if runs else None

    def _number(self, name: str, version: str) -> str | None:
        found = self._registered(name, version)
        return None if found is None else str(found.version)

    def _registered(self, name: str, version: str) -> ModelVersion | None:
        try:
            found = self._client.search_model_versions(f"name = '{name}' and {self._tagged({VERSION_TAG: version})}")
        except MlflowException as error:
            logger.debug("no registered model %s: %s", name, error)
            return None
        return found[0] if found else None


def _make_database(path: Path) -> None:
    """Make MLflow's database aside and rename it: its tables are made in many steps, and a kill between two of them
    would leave a database that MLflow refuses for ever.
    """
    if path.exists():
        return
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # it keeps connections by name, broken ones, too
    try:
        MlflowClient(tracking_uri=f"sqlite:///{aside}").search_experiments(max_results=1)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _metric_name(name: str) -> str:
    """Return a name that MLflow accepts: it refuses `@` and `=`."""
    return name.replace("@", "_at_").replace("=", ":")


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{name}.")
        else:
            yield name.replace("@", "_at_"), inner if isinstance(inner, str) else json.dumps(inner, default=str)
