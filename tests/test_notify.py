"""The webhook: what arrives at a loopback server, what is not told, and that no fault of the address matters."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pydantic import ValidationError

from kgrec.notify import Happening, NotifyConfig, notify


@contextmanager
def listener(status: int = 200, delay: float = 0.0) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Yield the address of a server and the bodies that it got."""
    got: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            time.sleep(delay)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_happened_arrives() -> None:
    with listener() as (url, got):
        assert notify(NotifyConfig(url=url), Happening.REFUSAL, "shop", "the gate refused", {"version": "3"})
    (body,) = got
    assert body.pop("time")
    assert body == {"event": "refusal", "name": "shop", "text": "the gate refused", "version": "3"}


def test_what_is_not_asked_for_is_not_told() -> None:
    with listener() as (url, got):
        config = NotifyConfig(url=url, on=(Happening.DRIFT,))
        assert not notify(config, Happening.FAILURE, "shop", "x", {})
        assert notify(config, Happening.DRIFT, "shop", "x", {})
    assert [body["event"] for body in got] == ["drift"]
    assert not notify(NotifyConfig(), Happening.DRIFT, "shop", "x", {})


@pytest.mark.parametrize("status", [404, 500])
def test_an_address_that_refuses_fails_nothing(status: int, caplog: pytest.LogCaptureFixture) -> None:
    with listener(status) as (url, _):
        assert not notify(NotifyConfig(url=url + "?token=geheim"), Happening.FAILURE, "shop", "x", {})
    assert "nobody could be told" in caplog.text
    assert "geheim" not in caplog.text


def test_an_address_that_is_slow_or_gone_fails_nothing() -> None:
    with listener(delay=0.5) as (url, _):
        started = time.perf_counter()
        assert not notify(NotifyConfig(url=url, timeout_seconds=0.1), Happening.FAILURE, "shop", "x", {})
        assert time.perf_counter() - started < 0.45
    assert not notify(NotifyConfig(url="http://127.0.0.1:9/"), Happening.FAILURE, "shop", "x", {})


def test_the_address_is_a_secret_and_http() -> None:
    config = NotifyConfig(url="https://example.com/geheim")
    assert "geheim" not in f"{config!r} {config.model_dump(mode='json')}"
    with pytest.raises(ValidationError, match="http"):
        NotifyConfig(url="file:///etc/passwd")
