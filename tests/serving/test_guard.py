from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime, timedelta

import pytest

from kgrec.serving.answers import Answerer
from kgrec.serving.guard import OPEN
from kgrec.serving.http import create_app
from kgrec.serving.limits import ServiceConfig
from kgrec.serving.live import LiveVersion
from kgrec.serving.tokens import TokenHash, Tokens
from tests.serving.served import client, make_workspace

ANN = {"user": "ann", "k": 1}
YESTERDAY = datetime.now(UTC) - timedelta(days=1)


def hashed(token):
    return hashlib.sha256(token.encode()).hexdigest()


TOKENS = Tokens([TokenHash("shop", hashed("open sesame")), TokenHash("old", hashed("was good"), YESTERDAY)])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("workspace"))


def with_token(token):
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "headers",
    [{}, with_token("wrong"), with_token("was good"), with_token(""), {"authorization": "Basic open sesame"},
     {"authorization": "open sesame"}, with_token(hashed("open sesame")),
     with_token("\xc3\xbf")],
    ids=["missing", "wrong", "expired", "empty", "basic", "no scheme", "the hash itself", "no ascii"],
)  # fmt: skip
def test_a_wrong_missing_or_expired_token_is_401_on_every_closed_route(place, headers):
    ask = client(place, TOKENS)
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    for path in ask.get("/openapi.json").json()["paths"]:
        method = "POST" if path in ("/v1/recommend", "/v1/similar", "/v1/score") else "GET"
        answer = ask.request(method, path, headers=encoded)
        assert (answer.status_code == 401) == (path not in OPEN), path
        if path not in OPEN:
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["error"] == "unauthorized"


def test_the_right_token_opens_and_needs_no_local_host(place):
    ask = client(place, TOKENS)
    headers = {**with_token("open sesame"), "host": "recommender.example.org"}
    assert ask.post("/v1/recommend", json=ANN, headers=headers).status_code == 200
    assert ask.get("/metrics", headers=with_token("open sesame")).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example.org", 403), ("evil.example.org:8000", 403), ("localhost.evil.org", 403), ("", 403),
     ("localhost", 200), ("127.0.0.1:8000", 200), ("[::1]:8000", 200), ("[::1]", 200)],
)  # fmt: skip
def test_without_tokens_a_foreign_host_is_refused(place, host, status):
    assert client(place).post("/v1/recommend", json=ANN, headers={"host": host}).status_code == status


def test_a_body_that_is_too_big_is_413_whether_its_length_is_told_or_not(place):
    ask = client(place, max_body_bytes=300)
    kind = {"content-type": "application/json"}
    fits = b'{"user": "ann"}'.ljust(300)
    assert ask.post("/v1/recommend", content=fits, headers=kind).status_code == 200
    assert ask.post("/v1/recommend", content=fits + b" ", headers=kind).status_code == 413

    async def parts():
        for _ in range(4):
            yield b" " * 100

    assert ask.post("/v1/recommend", content=parts(), headers=kind).status_code == 413
    for length in ("-1", "1e3", "9" * 5000):
        lying = {**kind, "content-length": length}
        assert ask.post("/v1/recommend", content=fits, headers=lying).status_code == 413


def test_only_json_is_read(place):
    answer = client(place).post("/v1/recommend", content=b"{}", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]) == (415, "no_json")


def test_too_many_requests_of_one_caller_are_429_and_others_go_on(place):
    both = Tokens([TokenHash("one", hashed("1")), TokenHash("two", hashed("2"))])
    ask = client(place, both, burst=3, requests_per_second=0.01)
    statuses = [ask.post("/v1/recommend", json=ANN, headers=with_token("1")).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    refused = ask.post("/v1/recommend", json=ANN, headers=with_token("1"))
    assert 1 <= int(refused.headers["retry-after"]) <= 100
    assert ask.post("/v1/recommend", json=ANN, headers=with_token("2")).status_code == 200
    assert ask.get("/healthz").status_code == 200, "health is never limited"


def test_guessing_tokens_is_slowed(place):
    ask = client(place, TOKENS)
    statuses = [ask.get("/metrics", headers=with_token(f"guess {n}")).status_code for n in range(130)]
    assert set(statuses[:100]) == {401}
    assert 429 in statuses[100:]
    assert ask.get("/metrics", headers=with_token("open sesame")).status_code == 200


def test_every_answer_carries_the_headers_of_security(place):
    ask = client(place)
    answers = [ask.get("/"), ask.get("/healthz"), ask.get("/nowhere"), ask.post("/v1/recommend", json=ANN),
               ask.post("/v1/recommend", content=b""), ask.request("DELETE", "/v1/recommend")]  # fmt: skip
    assert [answer.status_code for answer in answers] == [200, 200, 404, 200, 415, 405]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-kgrec-version"] == "1"
        assert "server" not in answer.headers
    assert all(answer.json()["version"] == "1" for answer in answers[1:])


def test_an_answer_that_takes_too_long_is_503(place, monkeypatch):
    monkeypatch.setattr(Answerer, "explain", lambda *_: time.sleep(0.4))
    answer = client(place, answer_seconds=0.05).get("/v1/explain", params={"user": "ann", "item": "a"})
    assert (answer.status_code, answer.json()["error"]) == (503, "timeout")


def exchange(app, messages, pause):
    """Send the messages of one POST with pauses between them; return the status of the answer."""
    sent = []

    async def receive():
        if messages:
            return messages.pop(0)
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/recommend", "raw_path": b"/v1/recommend", "query_string": b"",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "scheme": "http",
        "http_version": "1.1", "asgi": {"version": "3.0"},
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


def test_a_body_that_never_ends_is_408_and_one_that_breaks_off_400(place):
    live = LiveVersion(place)
    live.look()
    app = create_app(live, ServiceConfig(body_seconds=0.05), lambda: None)
    part = {"type": "http.request", "body": b'{"user"', "more_body": True}
    assert exchange(app, [dict(part)], pause=5) == 408
    assert exchange(app, [dict(part), {"type": "http.disconnect"}], pause=5) == 400
    assert exchange(app, [dict(part), {"type": "http.request", "body": b':"ann"}'}], pause=5) == 200


def test_what_is_still_sent_of_a_body_too_big_is_dropped_up_to_a_bound(place):
    live = LiveVersion(place)
    live.look()
    app = create_app(live, ServiceConfig(body_seconds=0.05), lambda: None)
    part = {"type": "http.request", "body": bytes(4 << 20), "more_body": True}
    ending = [dict(part) for _ in range(3)]
    assert exchange(app, ending, pause=5) == 413
    assert ending == [], "a body that ends soon is read to its end, so that its caller reads the answer"
    endless = [dict(part) for _ in range(50)]
    assert exchange(app, endless, pause=5) == 413
    assert len(endless) == 50 - 1 - 16


def test_more_requests_at_once_than_allowed_are_503(place, monkeypatch):
    started = []
    monkeypatch.setattr(Answerer, "explain", lambda *_: (started.append(1), time.sleep(0.3), {"version": "1"})[2])
    ask = client(place, max_in_flight=2)

    async def many():
        import httpx

        transport = httpx.ASGITransport(ask._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as one:
            call = [one.get("/v1/explain", params={"user": "ann", "item": "a"}) for _ in range(4)]
            return [answer.status_code for answer in await asyncio.gather(*call)]

    statuses = asyncio.run(many())
    assert sorted(statuses) == [200, 200, 503, 503]
    assert len(started) == 2
