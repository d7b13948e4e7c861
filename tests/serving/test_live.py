"""The switch of version: whole, under load, and never to what cannot be loaded."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
import weakref
from contextlib import contextmanager

import pytest
import uvicorn

from kgrec.serving import versions
from kgrec.serving.http import create_app
from kgrec.serving.limits import ServiceConfig
from kgrec.serving.live import LiveVersion
from tests.serving.served import FIRST_OF_ANN, make_workspace

REQUESTS, CALLERS, SWITCHES = 3000, 6, 12


@contextmanager
def running(place):
    """Serve a workspace in this process on a free port; yield the port."""
    live = LiveVersion(place)
    live.look()
    app = create_app(live, ServiceConfig(watch_seconds=0.01, burst=10**6, requests_per_second=10**6), lambda: None)
    server = uvicorn.Server(uvicorn.Config(app, port=0, access_log=False, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield server.servers[0].sockets[0].getsockname()[1], live
    finally:
        server.should_exit = True
        thread.join()


async def ask_on(port, count, found):
    """Send requests one after the other on one connection; note (status, version, header, first item) of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"user":"ann","k":1}'
    head = "POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}"
    for _ in range(count):
        writer.write(head.encode() + b"\r\n\r\n" + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        answer = json.loads(await reader.readexactly(int(headers["content-length"])))
        found.append((lines[0].split()[1], answer["version"], headers["x-kgrec-version"], answer["items"][0]["item"]))
    writer.close()


def test_no_request_is_lost_and_each_answer_is_of_the_version_it_names(tmp_path):
    place = make_workspace(tmp_path)
    found: list[tuple[str, str, str, str]] = []
    with running(place) as (port, live):

        async def load():
            await asyncio.gather(*(ask_on(port, REQUESTS // CALLERS, found) for _ in range(CALLERS)))

        thread = threading.Thread(target=lambda: asyncio.run(load()))
        thread.start()
        for number in range(SWITCHES):
            while len(found) < (number + 1) * REQUESTS // (SWITCHES + 2) and thread.is_alive():
                time.sleep(0.001)
            versions.promote(place, "21"[number % 2], why="test")
            deadline = time.monotonic() + 10
            while live.current.number != "21"[number % 2] and time.monotonic() < deadline:
                time.sleep(0.001)
        thread.join()
        assert live.switches == SWITCHES + 1
    assert len(found) == REQUESTS
    assert {status for status, *_ in found} == {"200"}
    assert {version for _, version, *_ in found} == {"1", "2"}
    for _, version, header, first in found:
        assert version == header
        assert first == FIRST_OF_ANN[version], "an answer of one version under the name of another"


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(tmp_path):
    place = make_workspace(tmp_path)
    live = LiveVersion(place)
    assert live.look()
    assert not live.look(), "nothing changed"
    record = versions.read_registry(place).find("2")
    damaged = place.store.path("version", record.key) / "vectors.safetensors"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    versions.promote(place, "2", why="test")
    assert not live.look()
    assert (live.current.number, live.stale, live.failures) == ("1", True, 1)
    damaged.write_bytes(whole)
    assert any(live.look() for _ in range(25)), "it tries again by itself"
    assert (live.current.number, live.stale) == ("2", False)


def test_a_version_that_fails_in_a_way_nobody_foresaw_leaves_the_old_one_serving(tmp_path, monkeypatch):
    place = make_workspace(tmp_path)
    live = LiveVersion(place)
    live.look()
    versions.promote(place, "2", why="test")
    monkeypatch.setattr("kgrec.serving.live.open_version", lambda *_: 1 / 0)
    assert not live.look()
    assert (live.current.number, live.stale, live.failures) == ("1", True, 1)


def test_a_version_that_is_served_no_more_is_freed_at_once(tmp_path):
    """Without the collector of garbage: a circle would keep all its tables until that comes round."""
    place = make_workspace(tmp_path)
    live = LiveVersion(place)
    live.look()
    live.current.recommend(user="ann", explain=True)
    live.current.explain("ann", "f")
    old = weakref.ref(live.current.version)
    versions.promote(place, "2", why="test")
    gc.disable()
    try:
        assert live.look()
        assert old() is None
    finally:
        gc.enable()


def test_the_watcher_paces_its_looks_and_no_other_thread(tmp_path, monkeypatch):
    live = LiveVersion(make_workspace(tmp_path, promoted=None))
    seen = []
    monkeypatch.setattr(live, "look", lambda: seen.append(sys.getprofile()))

    async def watched():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(live.watch(0.001), 0.1)
        return sys.getprofile(), await asyncio.to_thread(sys.getprofile)

    assert asyncio.run(watched()) == (sys.getprofile(), None)
    assert len(seen) > 1
    assert all(one is not None for one in seen)


def test_a_damaged_registry_is_survived(tmp_path):
    place = make_workspace(tmp_path)
    live = LiveVersion(place)
    live.look()
    whole = place.registry.read_bytes()
    place.registry.write_bytes(b"{")
    assert not live.look()
    assert (live.current.number, live.stale) == ("1", True)
    place.registry.unlink()
    assert not live.look()
    assert live.current.number == "1"
    place.registry.write_bytes(whole)
    live.look()
    assert not live.stale


def test_it_waits_for_the_first_promotion(tmp_path):
    place = make_workspace(tmp_path, promoted=None)
    live = LiveVersion(place)
    assert not live.look()
    assert live.current is None
    versions.promote(place, "2", why="test")
    assert live.look()
    assert live.current.number == "2"


def test_the_watcher_outlives_what_nobody_foresaw(tmp_path, monkeypatch):
    live = LiveVersion(make_workspace(tmp_path, promoted=None))
    looks = []

    def broken():
        looks.append(1)
        raise MemoryError

    monkeypatch.setattr(live, "look", broken)

    async def watched():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(live.watch(0.001), 0.2)

    asyncio.run(watched())
    assert len(looks) > 2
