"""Runs the HTTP service: the process, its signals, and the tokens it reads anew."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
import torch
import uvicorn

from kgrec.errors import InputError, Problem
from kgrec.serving.http import create_app
from kgrec.serving.index import search_threads
from kgrec.serving.limits import ServiceConfig
from kgrec.serving.live import LiveVersion
from kgrec.serving.tokens import ENVIRONMENT, Tokens, new_token, read_token_file, read_tokens
from kgrec.workspace import Workspace
from pipelines import show
from pipelines.http_protocol import BoundedHttpTools

HAND_OVER_SECONDS: Final = 0.0001
logger = logging.getLogger(__name__)


class LiveTokens:
    """The tokens of a file, read again when it changes; a broken file leaves the old ones counting."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = self._look()
        self._tokens = read_token_file(path)

    def __call__(self) -> Tokens:
        """Return the tokens that count now."""
        mark = self._look()
        if mark != self._mark:
            self._mark = mark
            try:
                self._tokens = read_token_file(self._path)
                logger.info("tokens read again")
            except InputError as error:
                logger.error("the tokens that counted still do: %s", error)
        return self._tokens

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size


def serve(workspace: str, config: ServiceConfig, *, as_json: bool) -> int:
    """Serve until SIGTERM or SIGINT, then let what is under way end; InputError when it may not or cannot listen."""
    place = Workspace(workspace, must_exist=True)
    tokens = _tokens(config)
    if tokens() is None and not config.on_loopback:
        remedy = "give tokens (kgrec token NAME --tokens FILE, then --tokens FILE), or listen on 127.0.0.1"
        raise InputError(Problem(f"--host {config.host}", "without tokens it would answer everybody", remedy))
    torch.set_num_threads(config.threads)
    _answer_before_all()
    live = LiveVersion(place)
    live.look()
    search_threads(config.threads)
    listener = _listen(config)
    address = f"http://{config.host}:{listener.getsockname()[1]}"
    version = live.current.number if live.current else None
    if as_json:
        show.as_json({"address": address, "version": version, "tokens": tokens() is not None})
    else:
        served = f"version {version}" if version else "no version is promoted yet; it waits for one"
        click.echo(f"{address} ({served}; Ctrl-C ends it)")
    app = create_app(live, config, tokens)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=config.drain_seconds,
            lifespan="on",
            http=BoundedHttpTools,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn drains, then raises the signal anew: an end in order is 0
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _answer_before_all() -> None:
    """Keep pauses of the process short, before a version is loaded.

    A thread that computes hands over Python's lock soon (each hand-over while another loads or explains takes that
    long), and the collector of garbage does not look through what is there for good: the modules.
    """
    sys.setswitchinterval(HAND_OVER_SECONDS)
    gc.collect()
    gc.freeze()


def make_token(path: Path, name: str, days: float | None, *, as_json: bool) -> None:
    """Print a new token and add its hash to the file."""
    token = new_token(path, name, days)
    if as_json:
        show.as_json({"name": name, "token": token, "tokens": str(path)})
    else:
        click.echo(token)
        click.echo("this is the only time that it is shown; the file holds its hash", err=True)


def _tokens(config: ServiceConfig) -> Callable[[], Tokens | None]:
    if config.tokens is not None:
        return LiveTokens(config.tokens)
    text = os.environ.get(ENVIRONMENT, "")
    known = read_tokens(text, f"${ENVIRONMENT}") if text.strip() else None
    return lambda: known


def _listen(config: ServiceConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
        listener.listen(2048)  # whoever reads the address may ask at once
    except OSError as error:
        listener.close()
        remedy = "take another port with --port, or 0 for a free one"
        raise InputError(Problem(f"{config.host}:{config.port}", f"cannot be listened on: {error}", remedy)) from None
    return listener
