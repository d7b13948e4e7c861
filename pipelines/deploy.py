"""Registers the scheduled run as a Prefect deployment, or serves the schedule in this process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from kgrec.config import load_config
from kgrec.errors import InputError, KgrecError, Problem
from kgrec.workspace import Workspace
from pipelines import show
from pipelines.environment import prepare_environment
from pipelines.server import API_URL, TemporaryServer

_ENVIRONMENT: Final = {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_WAIT_POLICY": "PASSIVE"}
_AT_ONCE: Final = 1
_NO_SERVER: Final = (
    "start one (`prefect server start`), say where it is (`export PREFECT_API_URL=http://127.0.0.1:4200/api`), "
    "and start a worker beside it (`prefect worker start --pool kgrec`); or add --local: no server is needed then"
)


@dataclass(frozen=True)
class Wanted:
    """What is to run when. name: of the config, and of the deployment."""

    name: str
    cron: str
    timezone: str
    parameters: dict[str, Any]


def deploy_config(
    config: str, overrides: tuple[str, ...], workspace: str, cron: str, timezone: str, pool: str, *, local: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Register the schedule, or serve it until stopped; InputError for a wrong config, cron or zone, or no server."""
    loaded, place = load_config(config, overrides), Workspace(workspace)
    parameters = {"config": str(Path(config).resolve()), "workspace": str(place.root), "overrides": list(overrides)}
    wanted = Wanted(loaded.config.name, cron, timezone, parameters)
    if local:
        return _serve(wanted, place, as_json=as_json)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
    answer = _register(wanted, pool)
    if as_json:
        show.as_json(answer)
        return 0
    click.echo(f"deployment {answer['deployment']}: {cron} ({timezone}), work pool {pool}, server {answer['api']}")
    click.echo(f"a worker runs it:  {answer['worker']}")
    click.echo(f"now, by hand:      prefect deployment run {answer['deployment']}")
    return 0


def _register(wanted: Wanted, pool: str) -> dict[str, Any]:
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.deployments.runner import RunnerDeployment
    from prefect.settings import get_current_settings
    from prefect.types.entrypoint import EntrypointType

    from pipelines.retrain import retrain

    schedule = _schedule(wanted)
    api = get_current_settings().api.url
    if not api:
        raise InputError(Problem(API_URL, "no Prefect server is named", _NO_SERVER))
    deployment = RunnerDeployment.from_flow(
        retrain, name=wanted.name, schedule=schedule, parameters=wanted.parameters,
        concurrency_limit=_AT_ONCE, job_variables={"env": _ENVIRONMENT}, work_pool_name=pool,
        entrypoint_type=EntrypointType.MODULE_PATH,
        description=f"Retrains {wanted.name}: ingest to promotion, what is unchanged reused.", tags=["kgrec"],
    )  # fmt: skip
    try:
        with get_client(sync_client=True) as client:
            made = _make_pool(client, pool)
        identity = deployment.apply()
    except httpx.TransportError as fault:
        raise InputError(Problem(str(api), f"no Prefect server answers ({type(fault).__name__})", _NO_SERVER)) from None
    return {"deployment": f"{retrain.name}/{wanted.name}", "id": str(identity), "cron": wanted.cron,
            "timezone": wanted.timezone, "pool": pool, "pool_made": made, "concurrency_limit": _AT_ONCE,
            "parameters": wanted.parameters, "api": str(api),
            "worker": f"prefect worker start --pool {pool}"}  # fmt: skip


def _make_pool(client: Any, pool: str) -> bool:
    """Make the work pool where it is missing and say whether it was; InputError when it is of another type."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=pool, type=ProcessWorker.type, base_job_template=template))
        return True
    if found.type != ProcessWorker.type:
        remedy = "name another pool with --pool"
        raise InputError(Problem(f"--pool {pool}", f"is of type {found.type}, not {ProcessWorker.type}", remedy))
    return False


def _schedule(wanted: Wanted) -> Any:
    from prefect.client.schemas.schedules import CronSchedule

    problems = []
    try:
        ZoneInfo(wanted.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        remedy = "take a name of the IANA list, as UTC or Europe/Berlin"
        problems.append(Problem("--timezone", "no such time zone", remedy, example=wanted.timezone))
    try:
        schedule = CronSchedule(cron=wanted.cron, timezone="UTC" if problems else wanted.timezone)
    except ValueError:
        remedy = 'five fields: minute, hour, day, month, weekday, as "0 3 * * *"'
        problems.append(Problem("--cron", "no cron expression", remedy, example=wanted.cron))
    if problems:
        raise InputError(problems)
    return schedule


def _serve(wanted: Wanted, place: Workspace, *, as_json: bool) -> int:
    """Serve the schedule until SIGINT or SIGTERM, by a server named in PREFECT_API_URL or one of this process."""
    prepare_environment(place)
    with TemporaryServer(place.prefect_home, services=True) as server:
        from pipelines.retrain import retrain

        schedule = _schedule(wanted)
        server.wait()
        answer = {"deployment": f"{retrain.name}/{wanted.name}", "cron": wanted.cron, "timezone": wanted.timezone,
                  "api": os.environ.get(API_URL), "local": True}  # fmt: skip
        if as_json:
            show.as_json(answer)
        else:
            click.echo(f"{answer['deployment']}: {wanted.cron} ({wanted.timezone}), served here; Ctrl-C ends it")
        try:
            retrain.serve(
                name=wanted.name,
                schedule=schedule,
                parameters=wanted.parameters,
                limit=_AT_ONCE,
                print_starting_message=False,
            )
        except KeyboardInterrupt:
            return 0
        except OSError as fault:
            raise KgrecError(f"the schedule cannot be served: {fault}") from None
    return 0
