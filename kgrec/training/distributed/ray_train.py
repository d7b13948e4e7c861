"""The launcher ray: Ray Train on the cluster that RAY_ADDRESS names, or on one that it starts on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from kgrec.training.distributed.launch import Launch, WorkersLostError

_STORED: Final = "ray"
_PATIENT: Final = {"RAY_raylet_start_wait_time_s": "180", "RAY_agent_register_timeout_ms": "180000"}
"""On a busy machine Ray's own processes take longer to start than the 30 seconds that it gives them."""
_PATIENCE_S: Final = 1800  # the leader judges while the others wait


def start(launch: Launch, module: str, job: Path) -> None:
    """Run the job as actors of a cluster; all see the workspace by the same path. Ray starts dead ones again."""
    with cluster(launch.processes):
        try:
            TorchTrainer(
                _work,
                train_loop_config={"module": module, "job": str(job)},
                torch_config=TorchConfig(backend="gloo", timeout_s=_PATIENCE_S),
                scaling_config=ScalingConfig(num_workers=launch.processes, resources_per_worker={"CPU": 1}),
                run_config=RunConfig(
                    name=job.stem, storage_path=str(job.parent / _STORED),
                    failure_config=FailureConfig(max_failures=launch.restarts),
                ),
            ).fit()  # fmt: skip
        except TrainingFailedError as failed:
            lost = f"the {launch.processes} processes of Ray died {launch.restarts + 1} times"
            raise WorkersLostError(f"{lost}:\n  {failed}") from None


@contextmanager
def cluster(processes: int, environment: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """Join the user's cluster or start one of this machine, and leave it; nothing to do where one was joined before.

    environment: variables of its processes, beside those that make them import the kgrec that runs here.
    """
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, runtime_env={"env_vars": {**_environment(), **environment}}, **_where(processes))
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _work(config: dict[str, Any]) -> None:
    """Do the job in a process whose process group Ray has joined."""
    import_module(config["module"]).main([config["job"]])


def _environment() -> dict[str, str]:
    """Return what makes the workers import the kgrec that runs here."""
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _where(processes: int) -> dict[str, Any]:
    """Return how to reach the cluster: the user's, else one of this machine with room for every process."""
    if "RAY_ADDRESS" in os.environ:
        return {}
    for name, value in _PATIENT.items():
        os.environ.setdefault(name, value)
    return {"num_cpus": max(processes + 1, os.cpu_count() or 1), "include_dashboard": False}
