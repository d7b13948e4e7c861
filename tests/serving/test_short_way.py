"""The short way answers as the routes do, to the byte, and takes what it is made for."""

from __future__ import annotations

import asyncio
import hashlib
import json
import weakref
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.serving import short_way
from kgrec.serving.answers import Answerer
from kgrec.serving.guard import SERVED
from kgrec.serving.http import create_app
from kgrec.serving.limits import ServiceConfig
from kgrec.serving.live import LiveVersion
from kgrec.serving.meters import Meters
from kgrec.serving.tokens import TokenHash, Tokens
from kgrec.serving.versions import promote
from tests.serving.served import make_workspace

KIND = (b"content-type", b"application/json")
TOKENS = Tokens([TokenHash("shop", hashlib.sha256(b"open sesame").hexdigest())])
BODIES = [
    b'{"user":"ann"}', b'{"user":"ann","k":1}', b'{"user":"bob","k":"3"}', b'{"user":5}', b'{"user":"nobody"}',
    b'{"user":"cat","exclude":["a",1]}', b'{"history":["e","nope"]}', b'{"history":[]}', b'{"user":"dan","k":1000}',
    b'{"user":"ann","filter":{"genre":["Comedy"]}}', b'{"user":"ann","filter":{"no such":1}}', b'{"user":" ann "}',
    b'{"user":"ann","explain":true}', b'{"user":"ann","order":"click"}', b'{"user":"ann","order":"nonsense"}',
    b'{"user":"ann","context":{"tab":1}}', b'{"user":"ann","unknown":1}', b'{"user":"ann","history":["a"]}',
    b'{"user":"ann","k":0}', b'{"user":"ann","k":1001}', b'{"user":"ann","k":1.5}', b'{"user":"ann","k":2.0}',
    b'{"user":"ann","k":NaN}', b'{"user":"ann","k":true}', b'{"user":"ann","k":null}', b'{"user":true}', b"{}", b"",
    b"null", b"[]", b'"ann"', b"{", b'{"user":"ann"}{', b'\xff{"user":"ann"}', b'\xef\xbb\xbf{"user":"ann"}',
    b"[" * 30_000, b'{"user":"' + b"x" * 600 + b'"}', b'{"user":"\\ud800"}', b'{"user":"ann","user":"bob"}',
    b'{"item":"a"}', b'{"item":"a","k":2}', b'{"item":"gone"}', b'{"item":"\xc3\xbf"}',
    b'{"item":"a","filter":{"genre":"x"}}', b'{"item":"a","filter":{"genre":{"min":1}}}',
]  # fmt: skip
KINDS = [
    b"application/json", b"application/json; charset=utf-8", b"Application/JSON", b"application/json;charset=latin-1",
    b"application/json;;", b"application/json/x", b"text/plain", b"",
]  # fmt: skip
HEADERS = [
    *([(b"content-type", kind)] for kind in KINDS), [], [KIND, (b"host", b"evil.example.org")],
    [KIND, (b"content-length", b"9" * 30)], [(b"content-type", b"text/plain"), KIND],
    [KIND, (b"content-type", b"text/plain")],
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("workspace"))


def service(place, tokens=None, **settings):
    live = LiveVersion(place)
    live.look()
    return create_app(live, ServiceConfig(**settings), lambda: tokens)


def ask(app, path, body, headers=(KIND,), method="POST"):
    """Return status, headers in order and body of the answer."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    path, _, query = path.partition("?")
    pairs = [(b"host", b"localhost"), *headers] if b"host" not in dict(headers) else list(headers)
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
             "root_path": "", "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1),
             "server": ("127.0.0.1", 80), "headers": pairs}  # fmt: skip
    with suppress(ZeroDivisionError):
        asyncio.run(app(scope, receive, send))
    return sent[0]["status"], sent[0]["headers"], b"".join(part["body"] for part in sent[1:])


def both(app, *arguments, **more):
    """Return the answers with and without a short way."""
    quick = ask(app, *arguments, **more)
    assert ask(app, *arguments, **more) == quick  # given again, where it is remembered
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(short_way, "ROUTES", {})
        return quick, ask(app, *arguments, **more)


@pytest.fixture(scope="module")
def app(place):
    return service(place)


@pytest.mark.parametrize("path", [short_way.RECOMMEND, short_way.SIMILAR])
def test_both_ways_give_the_same_answers_faults_and_headers(app, path):
    statuses = set()
    for body in BODIES:
        quick, slow = both(app, path, body)
        assert quick == slow, body[:80]
        statuses.add(quick[0])
    assert statuses >= {200, 422} | ({404} if path == short_way.SIMILAR else set())


def test_both_ways_refuse_alike(place, app):
    ann, path, statuses = b'{"user":"ann"}', short_way.RECOMMEND, set()
    closed, small = service(place, TOKENS), service(place, max_body_bytes=256)
    tokens = [[], [(b"authorization", b"Bearer wrong")], [(b"authorization", b"Bearer open sesame")]]
    calls = [(app, path, ann, headers, "POST") for headers in HEADERS]
    calls += [(closed, path, ann, [KIND, *token], "POST") for token in tokens]
    calls += [(app, where, ann, [KIND], "POST") for where in (path + "/", path + "?k=1", "/v1//recommend")]
    calls += [(app, path, ann, [KIND], method) for method in ("GET", "PUT", "HEAD", "OPTIONS")]
    calls += [(small, path, ann.ljust(size), [KIND], "POST") for size in (256, 257)]
    for one, where, body, headers, method in calls:
        quick, slow = both(one, where, body, headers, method=method)
        assert quick == slow, (where, headers, method)
        statuses.add(quick[0])
    assert statuses >= {200, 401, 403, 405, 413, 415}


def test_both_ways_refuse_too_many_alike(place):
    def statuses():
        one = service(place, burst=2, requests_per_second=0.01)
        return [ask(one, short_way.RECOMMEND, b'{"user":"ann"}')[0] for _ in range(3)]

    quick = statuses()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(short_way, "ROUTES", {})
        assert quick == statuses() == [200, 200, 429]


ids = st.one_of(st.sampled_from(["a", "b", "f", "gone", "ann", "cat"]), st.text(max_size=3), st.integers(-1, 9))
bodies = st.fixed_dictionaries(
    {},
    optional={
        "user": ids | st.none() | st.booleans(), "history": st.lists(ids, max_size=3), "k": st.integers(-1, 12),
        "exclude": st.lists(ids, max_size=3), "item": ids,
        "filter": st.dictionaries(st.sampled_from(["genre", "directed_by", "x"]), ids | st.lists(ids, max_size=2)),
        "order": st.sampled_from(["retrieval", "click", 1]), "explain": st.booleans() | st.just("yes"),
    },
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(body=bodies, path=st.sampled_from([short_way.RECOMMEND, short_way.SIMILAR]))
def test_both_ways_agree_on_whatever_is_sent(app, body, path):
    quick, slow = both(app, path, json.dumps(body).encode())
    assert quick == slow


def test_both_ways_say_alike_that_nothing_is_promoted_and_that_the_inside_failed(app, tmp_path, monkeypatch):
    quick, slow = both(service(make_workspace(tmp_path, promoted=None)), short_way.RECOMMEND, b'{"user":"ann"}')
    assert quick == slow
    assert quick[0] == 503
    monkeypatch.setattr(Answerer, "similar", lambda *_: 1 / 0)
    quick, slow = both(service(make_workspace(tmp_path / "other")), short_way.SIMILAR, b'{"item":"a"}')
    assert quick == slow
    assert quick[0] == 500


def passed_on(place, path, body, served=True, method="POST", kind=b"application/json"):
    """Return whether a request goes on to the routes, and what they are given to read."""
    live = LiveVersion(place)
    live.look()
    seen, sent = [], []

    async def routes(scope, receive, send):
        seen.append((await receive())["body"])

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"content-type", kind)],
             SERVED: live.current if served else None}  # fmt: skip
    asyncio.run(short_way.ShortWay(routes, Meters(live))(scope, receive, send))
    assert bool(seen) != bool(sent)
    return seen


def test_plain_requests_do_not_reach_the_routes_and_all_others_do_unread(place):
    ann = b'{"user":"ann"}'
    assert not passed_on(place, "/v1/recommend", ann)
    assert not passed_on(place, "/v1/recommend", b'{"history":["a"],"k":3}')
    assert not passed_on(place, "/v1/similar", b'{"item":"a"}')
    for body in (b'{"user":"ann","explain":true}', b'{"user":"ann","order":"click"}', b"{", b'{"user":1,"x":1}'):
        assert passed_on(place, "/v1/recommend", body) == [body]
    assert passed_on(place, "/v1/score", ann)
    assert passed_on(place, "/v1/recommend", ann, served=False)
    assert passed_on(place, "/v1/recommend", ann, method="PUT")
    assert passed_on(place, "/v1/recommend", ann, kind=b"application/json; charset=latin-1")


def test_metrics_count_a_request_of_the_short_way_as_the_routes_do(place, monkeypatch):
    def counted():
        one = service(place)
        for body in (b'{"user":"ann"}', b'{"user":"nobody"}', b'{"user":"ann","k":0}', b'{"user":"ann"}'):
            ask(one, short_way.RECOMMEND, body)
        lines = ask(one, "/metrics", b"", method="GET")[2].decode().splitlines()
        return [
            one for one in lines if ("/v1/recommend" in one and "_total" in one) or one.startswith("kgrec_recommend")
        ]

    quick = counted()
    monkeypatch.setattr(short_way, "ROUTES", {})
    assert [one for one in quick if "created" not in one] == [one for one in counted() if "created" not in one]
    assert any('status="422"' in one for one in quick)
    assert any('based_on="popularity"' in one for one in quick)


def remembered(app):
    lines = ask(app, "/metrics", b"", method="GET")[2].decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("kgrec_remembered_answers_total")))


def first_item(app, body):
    return json.loads(ask(app, short_way.RECOMMEND, body)[2])["items"][0]["item"]


@pytest.fixture
def switching(tmp_path, monkeypatch):
    """Return a service, what switches it from version 1 to 2, and the list that grows with each list computed."""
    place, computed, recommend = make_workspace(tmp_path), [], Answerer.recommend
    live = LiveVersion(place)
    live.look()
    monkeypatch.setattr(Answerer, "recommend", lambda *given, **more: computed.append(1) or recommend(*given, **more))

    def switch():
        promote(place, "2", why="test")
        assert live.look()
        computed.clear()

    return create_app(live, ServiceConfig(), lambda: None), switch, computed


def test_a_list_is_computed_once_and_the_next_version_makes_its_own_before_it_is_served(switching):
    app, switch, computed = switching
    assert [first_item(app, b'{"user":"ann"}') for _ in range(3)] == ["f"] * 3
    assert (len(computed), remembered(app)) == (1, 2.0)
    switch()
    assert [first_item(app, b'{"user":"ann"}') for _ in range(3)] == ["a"] * 3
    assert (len(computed), remembered(app)) == (0, 5.0)


def test_who_is_unknown_to_the_next_version_is_not_carried_over(switching):
    app, switch, computed = switching
    first_item(app, b'{"user":"nobody"}')
    switch()
    first_item(app, b'{"user":"nobody"}')
    assert len(computed) == 1


def test_a_switch_does_not_wait_for_more_lists_than_two_seconds_make(switching, monkeypatch):
    app, switch, computed = switching
    for user in ("ann", "bob"):
        first_item(app, json.dumps({"user": user}).encode())
    monkeypatch.setattr(short_way, "_CARRY_SECONDS", -1.0)
    switch()
    assert first_item(app, b'{"user":"ann"}') == "a"
    assert len(computed) == 1


def test_what_goes_wrong_and_what_takes_a_thread_is_not_remembered_and_nothing_is_without_room(place):
    one, none = service(place), service(place, remembered_mb=0)
    for _ in range(2):
        ask(one, short_way.RECOMMEND, b'{"user":"ann","k":0}')
        ask(one, short_way.RECOMMEND, b'{"user":"ann","explain":true}')
        ask(none, short_way.RECOMMEND, b'{"user":"ann"}')
    assert remembered(one) == remembered(none) == 0.0


def test_a_version_that_is_served_no_more_is_not_kept_by_what_it_answered(tmp_path):
    place = make_workspace(tmp_path)
    live = LiveVersion(place)
    live.look()
    one, old = create_app(live, ServiceConfig(), lambda: None), weakref.ref(live.current)
    ask(one, short_way.RECOMMEND, b'{"user":"ann"}')
    promote(place, "2", why="test")
    assert live.look()
    assert old() is None


def test_a_slow_reader_is_given_up_on_the_short_way_too(place):
    one, sent = service(place, answer_seconds=0.05), []

    async def receive():
        return {"type": "http.request", "body": b'{"user":"ann"}', "more_body": False}

    async def send(message):
        sent.append(message)
        await asyncio.sleep(5 if len(sent) > 1 else 0)

    scope = {"type": "http", "method": "POST", "path": "/v1/recommend", "query_string": b"", "client": ("::1", 1),
             "headers": [(b"host", b"localhost"), KIND]}  # fmt: skip

    async def within():
        await asyncio.wait_for(one(scope, receive, send), 2)

    asyncio.run(within())  # without the bound it would wait for five seconds, and this for two
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
