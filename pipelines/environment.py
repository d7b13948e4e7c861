"""Prefect's settings for a workspace: to be made before prefect is first imported."""

from __future__ import annotations

import os

from kgrec.workspace import Workspace


def prepare_environment(workspace: Workspace) -> None:
    """Point Prefect at the workspace, and keep it quiet, patient and private; what the user set stands."""
    settings = {
        "PREFECT_HOME": str(workspace.prefect_home),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",  # a failed stage is told once, by the command itself
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    workspace.prefect_home.mkdir(parents=True, exist_ok=True)
