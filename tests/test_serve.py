"""`kgrec serve` and `kgrec token` as a user runs them: the process, its end, its refusals, the page in a browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.calling import as_json, call
from tests.serving.served import make_workspace

CHROMIUM = shutil.which("chromium")
COMMAND = [sys.executable, "-c", "from pipelines.cli import main; main()", "serve", "--json", "--port", "0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("served") / "workspace")


@contextmanager
def service(place, *options, environment=()):
    """Run the service; yield the process and its address."""
    command = [*COMMAND, "--workspace", str(place.root), *map(str, options)]
    env = {**os.environ, **dict(environment), "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            told = json.loads(process.stdout.readline())
            yield process, told["address"]
        finally:
            process.kill()


def test_it_serves_drains_on_sigterm_and_ends_with_0(place):
    with service(place) as (process, address):
        port = int(address.rpartition(":")[2])
        assert httpx.get(f"{address}/readyz").json() == {"status": "ok", "version": "1"}
        with socket.create_connection(("127.0.0.1", port)) as half:
            body = b'{"user":"ann","k":1}'
            head = f"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            half.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body[:5])
            time.sleep(0.3)  # the request is under way: its body is half there
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert process.poll() is None, "it waits for what is under way"
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", port))
            half.sendall(body[5:])
            half.settimeout(20)
            answer = b"".join(iter(lambda: half.recv(65536), b""))  # it closes what it has answered
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"item":"f"' in answer
        assert process.wait(timeout=20) == 0
        assert "Traceback" not in process.stderr.read()


def test_who_sends_a_body_far_too_big_reads_a_413_and_no_reset(place):
    body = b" " * 12_000_000  # more than the buffers between two sockets hold
    head = f"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n".encode()
    with service(place) as (_, address):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as caller:
                caller.sendall(head + b"Content-Type: application/json\r\n\r\n" + body)
                caller.settimeout(20)
                answer = b"".join(iter(lambda: caller.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 413")
            assert b'"error": "too_big"' in answer


def test_endless_headers_are_refused_and_long_ones_are_not(place):
    with service(place) as (_, address):
        host, port = address.removeprefix("http://").split(":")

        def ask(head: bytes) -> bytes:
            with socket.create_connection((host, int(port)), timeout=10) as caller:
                with suppress(ConnectionError):
                    for start in range(0, len(head), 16_384):
                        caller.sendall(head[start : start + 16_384])
                        time.sleep(0.01)
                    return caller.recv(65_536)
                return b""

        for _ in range(2):
            fits = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx-long: " + 20_000 * b"a" + b"\r\n\r\n"
            assert ask(fits).startswith(b"HTTP/1.1 200")
        for endless in (b"x-long: " + 200_000 * b"a", 20_000 * b"x-a: b\r\n"):
            answer = ask(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n" + endless)
            assert not answer or answer.startswith(b"HTTP/1.1 400")


def test_the_page_shows_a_list_reasons_and_a_picture_in_a_browser(place, tmp_path):
    if CHROMIUM is None:
        pytest.skip("NOT TESTED IN A BROWSER: chromium is not installed")
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --dump-dom"
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=8000"
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={tmp_path}"]
    with service(place) as (_, address):
        shown = {}
        for query in ("user=ann", "item=film%20a", "user=%3Cb%3Enobody"):
            done = subprocess.run(
                [*command, f"{address}/#{query}"], capture_output=True, text=True, timeout=60, check=True
            )
            assert "CONSOLE" not in done.stderr, done.stderr
            shown[query] = done.stdout
    page = shown["user=ann"]
    assert "version 1</span>" in page
    assert "For user ann</h2>" in page
    assert "from what training learned of this user" in page
    assert 'genre Comedy as in "Film A"' in page
    assert "<svg" in page
    assert ">Nora Ephron</text>" in page
    assert "Nearest to Film A</h2>" in shown["item=film%20a"]
    assert ">Film C</button>" in shown["item=film%20a"]
    assert "For user &lt;b&gt;nobody</h2>" in shown["user=%3Cb%3Enobody"], "an id is text, never markup"
    assert "what is most popular" in shown["user=%3Cb%3Enobody"]


def test_tokens_made_by_the_command_are_asked_for_and_revoked_by_the_file(place, tmp_path):
    path = tmp_path / "tokens"
    told = as_json(call("token", "shop", "--tokens", path, "--json"))
    assert told["token"] not in path.read_text()
    call("token", "other", "--tokens", path)
    with service(place, "--tokens", path) as (_, address):
        headers = {"authorization": f"Bearer {told['token']}"}
        ask = {"url": f"{address}/v1/recommend", "json": {"user": "ann"}}
        assert httpx.post(**ask).status_code == 401
        assert httpx.post(**ask, headers=headers).status_code == 200
        path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("shop")))
        assert httpx.post(**ask, headers=headers).status_code == 401
        path.write_text("broken")
        assert httpx.post(**ask, headers=headers).status_code == 401, "a broken file opens nothing"


def test_it_refuses_to_answer_everybody(place):
    refused = call("serve", "--workspace", place.root, "--host", "0.0.0.0")
    assert refused.exit_code == 2
    assert "without tokens it would answer everybody" in refused.stderr


@pytest.mark.parametrize("text", ["broken", "# nobody"])
def test_it_refuses_tokens_that_cannot_be_read(place, tmp_path, text):
    path = tmp_path / "tokens"
    path.write_text(text)
    assert call("serve", "--workspace", place.root, "--tokens", path).exit_code == 2


def test_a_port_that_is_taken_and_a_workspace_that_is_not_there_are_input_errors(place, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = call("serve", "--workspace", place.root, "--port", taken.getsockname()[1])
    assert refused.exit_code == 2
    assert "take another port" in refused.stderr
    assert call("serve", "--workspace", tmp_path / "none").exit_code == 2


def test_the_service_keeps_its_pauses_short():
    """In a process of its own: the settings count for a whole process."""
    code = "import gc, sys; from pipelines.serve import _answer_before_all as f; f()"
    code += (
        "; print(round(1e6 * sys.getswitchinterval()), gc.get_freeze_count() > 10_000, len(gc.get_objects()) < 1000)"
    )
    root = Path(__file__).parents[1]
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert told.stdout.split() == ["100", "True", "True"]
