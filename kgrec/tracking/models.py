"""The logged model: a version as a model from code, how it is logged, found and asked."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.utils import requirements_utils

from kgrec.errors import KgrecError
from kgrec.tracking.stores import speaking_to

_MAP: Final = "_MODULES_TO_PACKAGES"


def log_model(uri: str, run_id: str, experiment_id: str, name: str, folder: Path) -> tuple[str, str]:
    """Log a version's folder as a model of a run and register it under a name; return its number there and its id.

    MLflow reads the whole history of each of the run's figures to tie those of now to the model: log a model first.
    """
    with speaking_to(uri):
        mlflow.set_experiment(experiment_id=experiment_id)
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
    return str(logged.registered_model_version), str(logged.model_id)


def load_logged(uri: str, tracking_uri: str) -> Any:
    """Load a model that MLflow logged, for prediction in this process."""
    with speaking_to(tracking_uri):
        return mlflow.pyfunc.load_model(uri)


def predict_logged(model: Any, users: Sequence[str], k: int) -> pd.DataFrame:
    """Ask a loaded model for the top k of some users."""
    answer: pd.DataFrame = model.predict(pd.DataFrame({"user": list(users)}), params={"k": k})
    return answer


def code_model() -> Path:
    """Return the file of the code model: beside the package in a checkout, under `share/kgrec` when installed."""
    places = [Path(__file__).parents[2] / "mlflow" / "retriever.py", Path(sys.prefix) / "share/kgrec/retriever.py"]
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
