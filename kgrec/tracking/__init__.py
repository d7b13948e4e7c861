"""MLflow: every run with its data, parameters, figures over time and model; the one package that knows mlflow."""

from kgrec.tracking.ahead import load_ahead
from kgrec.tracking.copies import Copy, ServerCopies
from kgrec.tracking.models import code_model, load_logged, predict_logged
from kgrec.tracking.old_runs import LoggedRun, logged_runs
from kgrec.tracking.runs import ALIAS, KEY_TAG, VERSION_TAG, RunRecord, Tracking

__all__ = [
    "ALIAS", "KEY_TAG", "VERSION_TAG", "Copy", "LoggedRun", "RunRecord", "ServerCopies", "Tracking", "code_model",
    "load_ahead", "load_logged", "logged_runs", "predict_logged",
]  # fmt: skip
