"""What every command has: --workspace, --json, and errors told to people with the right exit status."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from kgrec.errors import InputError, KgrecError, storage_fault

overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the config."
)

launch_options = (
    click.option("--launcher", type=click.Choice(["local", "torchrun", "ray"]), default="local", show_default=True,
                 help="What starts the processes that train: this one alone, torchrun, or Ray."),
    click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True,
                 help="How many processes train together."),
)  # fmt: skip


def launched(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --launcher and --processes."""
    for option in reversed(launch_options):
        command = option(command)
    return command


def common(command: Callable[..., int | None]) -> Callable[..., Any]:
    """Give a command --workspace and --json, and turn errors made for people into messages and exit statuses."""

    @click.option("--workspace", default="./workspace", show_default=True, help="Folder of everything kgrec makes.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else.")
    @functools.wraps(command)
    def wrapped(*arguments: Any, as_json: bool, **options: Any) -> None:
        try:
            status = command(*arguments, as_json=as_json, **options)
        except KgrecError as error:
            from pipelines import show

            problems = error.problems if isinstance(error, InputError) else ()
            show.fault(error, as_object=as_json, problems=problems)
            sys.exit(error.exit_status)
        except Exception as error:
            fault = storage_fault(error)
            if fault is None:
                raise
            from pipelines import show

            show.fault(fault, as_object=as_json, problems=())
            sys.exit(fault.exit_status)
        sys.exit(status or 0)

    return wrapped
