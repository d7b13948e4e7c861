"""MLflow: every run with its data, parameters, figures over time and model; the one place that knows mlflow.

Everything is written so that it can be repeated: a run is found again by its key, so a process that was killed
half-way through logging continues the same MLflow run.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # tens of lines where stderr is a file

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.utils import requirements_utils

from kgrec.errors import KgrecError
from kgrec.workspace import Workspace, person

KEY_TAG: Final = "kgrec.key"
VERSION_TAG: Final = "kgrec.version"
ALIAS: Final = "promoted"
_PARAM_LENGTH: Final = 500
_BATCH: Final = 900
_MAP: Final = "_MODULES_TO_PACKAGES"

logger = logging.getLogger(__name__)


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
    """The MLflow store of a workspace: sqlite for the figures, a folder for the files."""

    def __init__(self, workspace: Workspace) -> None:
        if not hasattr(mlflow, "__version__"):
            raise KgrecError(
                "`import mlflow` found a folder of that name instead of the package\n"
                "  remedy:  remove mlflow/__init__.py, or `pip install mlflow`"
            )
        self.uri = f"sqlite:///{workspace.tracking_database}"
        self._artifacts = workspace.tracking_artifacts
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        _make_database(workspace.tracking_database)
        self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def open_run(self, key: str, name: str, *, label: str | None = None, parent: str | None = None) -> str:
        """Return the id of the MLflow run with this key, made now when there is none.

        label: what people see beside the key, default the name. parent: the id of the run that this one is part of.
        """
        experiment_id = self._experiment(name)
        found = self._find(experiment_id, key)
        if found is not None:
            return str(found.info.run_id)
        tags = {KEY_TAG: key, "mlflow.runName": f"{label or name}-{key[:8]}"}
        tags |= {"mlflow.parentRunId": parent} if parent is not None else {}
        run = self._client.create_run(experiment_id, tags=tags)
        return str(run.info.run_id)

    def log_run(self, run_id: str, record: RunRecord, files: Path | None = None) -> None:
        """Log parameters, figures (per epoch and final), the dataset and a folder of files; repeating it is safe."""
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
        metrics += [Metric(_metric_name(name), float(v), last, 0) for name, v in sorted(record.metrics.items())]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in sorted(record.tags.items())])
        profile = json.dumps(dict(record.dataset_profile), default=str)
        dataset = Dataset(record.dataset_name, record.dataset_digest[:36], "kgrec", json.dumps({}), profile=profile)
        self._client.log_inputs(run_id, [DatasetInput(dataset)])
        if files is not None:
            self._client.log_artifacts(run_id, str(files), "report")

    def log_version(self, run_id: str, name: str, version: str, folder: Path) -> None:
        """Log a version as a model from code, register it, and tag it with kgrec's own number."""
        if self._registered(name, version) is None:
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            mlflow.set_experiment(experiment_id=self._client.get_run(run_id).info.experiment_id)
            with mlflow.start_run(run_id=run_id), warnings.catch_warnings(), _packages_unread():
                warnings.simplefilter("ignore", UserWarning)  # it asks for an example; the signature says all
                logged = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(code_model()),
                    artifacts={"version": str(folder)},
                    signature=_signature(),
                    pip_requirements=["kgrec"],
                    registered_model_name=name,
                )
            self._client.set_model_version_tag(name, str(logged.registered_model_version), VERSION_TAG, version)
        self.finish(run_id)

    def finish(self, run_id: str) -> None:
        """Say that a run is over."""
        self._client.set_terminated(run_id, "FINISHED")

    def set_promoted(self, name: str, version: str) -> None:
        """Point the alias `promoted` of the registered model at a version of kgrec; tags say who served what when."""
        number = self._registered(name, version)
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

    def _aliased(self, name: str) -> str | None:
        try:
            return str(self._client.get_model_version_by_alias(name, ALIAS).version)
        except MlflowException:
            return None

    def model_uri(self, name: str, version: str) -> str:
        """Return the URI under which MLflow loads a version."""
        return f"models:/{name}/{self._registered(name, version)}"

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=self._artifacts.as_uri()))

    def _find(self, experiment_id: str, key: str) -> Run | None:
        runs = self._client.search_runs([experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        return runs[0] if runs else None

    def _registered(self, name: str, version: str) -> str | None:
        try:
            found = self._client.search_model_versions(f"name = '{name}' and tags.`{VERSION_TAG}` = '{version}'")
        except MlflowException as error:
            logger.debug("no registered model %s: %s", name, error)
            return None
        return str(found[0].version) if found else None


@contextmanager
def _packages_unread() -> Iterator[None]:
    """Keep MLflow from reading the file lists of all installed packages (seconds) to judge requirements that are given.

    It maps modules to packages once a process and looks only whether it has; where it keeps that otherwise, it reads.
    """
    known = getattr(requirements_utils, _MAP, None)
    setattr(requirements_utils, _MAP, known or {"mlflow": ["mlflow"], "kgrec": ["kgrec"]})
    try:
        yield
    finally:
        setattr(requirements_utils, _MAP, known)


def _make_database(path: Path) -> None:
    """Make MLflow's database aside and rename it: its tables are made in many steps, and a kill between two of them
    would leave a database that MLflow refuses for ever.
    """
    if path.exists():
        return
    aside = path.with_name(f".{path.name}.part")
    aside.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"sqlite:///{aside}").search_experiments(max_results=1)
    aside.replace(path)


def load_logged(uri: str, tracking_uri: str) -> Any:
    """Load a model that MLflow logged, for prediction in this process."""
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    return mlflow.pyfunc.load_model(uri)


def predict_logged(model: Any, users: Sequence[str], k: int) -> pd.DataFrame:
    """Ask a loaded model for the top k of some users."""
    answer: pd.DataFrame = model.predict(pd.DataFrame({"user": list(users)}), params={"k": k})
    return answer


def code_model() -> Path:
    """Return the file of the code model: beside the package in a checkout, under `share/kgrec` when installed."""
    places = [Path(__file__).parents[1] / "mlflow" / "retriever.py", Path(sys.prefix) / "share/kgrec/retriever.py"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise KgrecError(f"the code model is missing, looked in {places}\n  remedy:  install kgrec again")
    return found


def _signature() -> ModelSignature:
    text, number = DataType.string, DataType.double
    return ModelSignature(
        inputs=Schema([ColSpec(text, "user")]),
        outputs=Schema([ColSpec(text, "user"), ColSpec(text, "item"), ColSpec(text, "title", required=False),
                        ColSpec(number, "score")]),
        params=ParamSchema([ParamSpec("k", DataType.long, 10)]),
    )  # fmt: skip


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
