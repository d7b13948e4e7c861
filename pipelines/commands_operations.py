"""Commands of a recommender that runs by itself: `deploy`, `monitor`, `prune`."""

from __future__ import annotations

import click

from pipelines.options import common, overrides_option


@click.command()
@click.argument("config")
@click.option("--cron", required=True, metavar="CRON", help='When to run, five fields: "0 3 * * *" is daily at three.')
@click.option("--timezone", default="UTC", show_default=True, help="Time zone of --cron.")
@click.option("--pool", default="kgrec", show_default=True, help="Work pool (type process); made when it is not there.")
@click.option(
    "--local", is_flag=True, help="Serve the schedule in this process, with a server of its own, until stopped."
)
@overrides_option
@common
def deploy(
    config: str, cron: str, timezone: str, pool: str, local: bool, overrides: tuple[str, ...], workspace: str,
    as_json: bool,
) -> int:  # fmt: skip
    """Retrain CONFIG by the clock: registers a Prefect deployment of `kgrec run CONFIG`."""
    from pipelines.deploy import deploy_config

    return deploy_config(config, overrides, workspace, cron, timezone, pool, local=local, as_json=as_json)


@click.command()
@click.argument("config")
@click.option(
    "--since", required=True, metavar="T", help="Start of the new data, as 2026-05-01 or an ISO instant (UTC)."
)
@click.option("--until", metavar="T", help="End of the new data, itself outside; default: all there is.")
@click.option("--retrain", is_flag=True, help="Run the whole chain where an alert stands.")
@overrides_option
@common
def monitor(
    config: str, since: str, until: str | None, retrain: bool, overrides: tuple[str, ...], workspace: str,
    as_json: bool,
) -> int:  # fmt: skip
    """Compare new data with what the promoted version was trained on: drift, labels, calibration, ranking, graph."""
    from pipelines.monitor import monitor_config

    return monitor_config(config, overrides, workspace, since, until, retrain=retrain, as_json=as_json)


@click.command()
@click.argument("config")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@overrides_option
@common
def prune(config: str, dry_run: bool, overrides: tuple[str, ...], workspace: str, as_json: bool) -> int:
    """Remove old versions and artifacts as [retention] of CONFIG says; never what is served."""
    from pipelines.prune import prune_config

    return prune_config(config, overrides, workspace, only_tell=dry_run, as_json=as_json)
