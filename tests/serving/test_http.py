from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kgrec.serving.answers import Answerer
from tests.serving.served import client, make_workspace


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def ask(place):
    return client(place)


def items(answer):
    assert answer.status_code == 200, answer.text
    return [one["item"] for one in answer.json()["items"]]


def recommend(ask, **body):
    return ask.post("/v1/recommend", json=body)


EVERY_ROUTE = {  # documented route -> calls that the documentation promises an answer to, with the status
    ("get", "/healthz"): [({}, 200)],
    ("get", "/readyz"): [({}, 200)],
    ("get", "/metrics"): [({}, 200)],
    ("post", "/v1/recommend"): [
        ({"json": {"user": "ann"}}, 200), ({"json": {"user": 5, "k": 1000}}, 200),
        ({"json": {"history": ["e", "nope"], "explain": True, "exclude": ["a", 1]}}, 200),
        ({"json": {"user": "cat", "filter": {"genre": ["Comedy"]}}}, 200), ({"json": {}}, 422),
        ({"json": {"user": "ann", "order": "click"}}, 422), ({"content": b"{"}, 415),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422),
    ],
    ("post", "/v1/similar"): [({"json": {"item": "a"}}, 200), ({"json": {"item": "gone"}}, 404)],
    ("post", "/v1/score"): [({"json": {"user": "ann", "items": ["a"]}}, 422)],
    ("get", "/v1/explain"): [
        ({"params": {"user": "ann", "item": "f"}}, 200), ({"params": {"user": "x", "item": "f"}}, 200),
        ({"params": {"user": "ann", "item": "?"}}, 404), ({"params": {"user": "ann"}}, 422),
    ],
    ("get", "/v1/items"): [({"params": {"text": "film"}}, 200), ({"params": {"text": "film", "k": 0}}, 422)],
}  # fmt: skip


def test_every_documented_route_answers_as_documented(ask):
    page = ask.get("/openapi.json").json()
    documented = {(method, path) for path, methods in page["paths"].items() for method in methods}
    assert documented == set(EVERY_ROUTE), "a route without a call here, or a call without a route"
    for (method, path), calls in EVERY_ROUTE.items():
        for arguments, status in calls:
            answer = ask.request(method, path, **arguments)
            assert answer.status_code == status, (path, arguments, answer.text)
            promised = page["paths"][path][method]["responses"][str(status)]["content"]
            kind = answer.headers["content-type"].split(";")[0]
            assert kind in promised
            if kind == "application/json":
                schema = {**promised[kind]["schema"], "components": page["components"]}
                jsonschema.validate(answer.json(), schema)
                assert answer.json()["version"] == "1"
            assert answer.headers["x-kgrec-version"] == "1"


def test_the_schema_would_catch_an_answer_of_another_shape(ask):
    page = ask.get("/openapi.json").json()
    schema = page["paths"]["/v1/recommend"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    wrong = recommend(ask, user="ann").json()
    del wrong["version"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, {**schema, "components": page["components"]})


def test_it_answers_as_the_version_does(ask):
    assert items(recommend(ask, user="ann", k=10)) == ["f", "d", "e"]
    assert items(recommend(ask, user=" ann ", k=2)) == ["f", "d"]
    known = recommend(ask, user="ann").json()
    assert (known["based_on"], known["fallback"], known["user"]) == ("trained", None, "ann")
    assert known["items"][0] == {"item": "f", "title": None, "score": pytest.approx(0.6)}
    near = ask.post("/v1/similar", json={"item": "a", "k": 2}).json()
    assert [(one["item"], round(one["score"], 4)) for one in near["items"]] == [("c", 0.8), ("b", 0.6)]


def test_a_user_whom_nobody_knows_gets_what_is_popular_and_is_told_so(ask):
    answer = recommend(ask, user="nobody", k=2).json()
    assert (answer["based_on"], answer["fallback"]) == ("popularity", "popularity")
    assert [one["item"] for one in answer["items"]] == ["a", "b"]


def test_a_stranger_is_placed_by_the_history_they_send(ask):
    answer = recommend(ask, history=["e", "unheard of"], k=2).json()
    assert (answer["based_on"], answer["user"]) == ("history", None)
    assert [one["item"] for one in answer["items"]] == ["d", "b"], "the same as cat, whose history is e"
    assert answer["unknown_items"] == ["unheard of"]
    assert "e" not in items(recommend(ask, history=["e"], k=100)), "what they had is left out"
    for nothing in ([], ["unheard of"]):
        assert recommend(ask, history=nothing).json()["fallback"] == "popularity"


def test_excluded_items_are_left_out_as_well_as_what_the_user_had(ask):
    assert items(recommend(ask, user="ann", exclude=["f", "unheard of"])) == ["d", "e"]
    assert items(recommend(ask, user="nobody", exclude=["a"], k=1)) == ["b"]
    assert items(recommend(ask, history=["e"], exclude=["d"], k=1)) == ["b"]


def test_a_filter_lets_only_what_fits_through(ask):
    assert items(recommend(ask, user="ann", filter={"genre": "Comedy"})) == ["f"]
    assert items(recommend(ask, user="nobody", filter={"genre": "comedy"})) == ["a", "f"], "an entity's id fits, too"
    assert items(recommend(ask, user="nobody", filter={"directed_by": "Nora Ephron", "genre": "Comedy"})) == ["f"]
    assert items(recommend(ask, user="nobody", filter={"genre": "Western"})) == []
    assert items(ask.post("/v1/similar", json={"item": "a", "filter": {"directed_by": ["m.0x", 3]}})) == ["b", "f"]
    wrong = recommend(ask, user="ann", filter={"gnre": 1})
    assert wrong.status_code == 422
    assert wrong.json()["problems"][0]["remedy"] == "did you mean genre?"


def test_reasons_and_the_picture_say_what_connects(ask):
    first = recommend(ask, user="ann", k=1, explain=True).json()["items"][0]
    assert 'genre Comedy as in "Film A"' in first["reason"]
    why = ask.get("/v1/explain", params={"user": "ann", "item": "f"}).json()
    assert (why["reason"], why["score"]) == (first["reason"], pytest.approx(first["score"]))
    labels = {node["label"]: node["kind"] for node in why["nodes"]}
    assert labels == {
        "f": "item",
        "Comedy": "entity",
        "Nora Ephron": "entity",
        "Film A": "history",
        "Film B": "history",
    }
    by_id = {node["id"]: node["label"] for node in why["nodes"]}
    assert ("Film A", "Comedy", "genre") in {
        (by_id[e["source"]], by_id[e["target"]], e["relation"]) for e in why["edges"]
    }
    popular = ask.get("/v1/explain", params={"user": "nobody", "item": "a"}).json()
    assert (popular["nodes"][1:], popular["score"]) == ([], pytest.approx(0.4))


def test_items_are_found_by_title_or_id(ask):
    assert items(ask.get("/v1/items", params={"text": "FILM", "k": 3})) == ["a", "b", "c"]
    assert items(ask.get("/v1/items", params={"text": "f"}))[0] == "f", "the id itself comes first"
    assert items(ask.get("/v1/items", params={"text": "gone"})) == []


def test_readiness_follows_the_registry_and_health_does_not(tmp_path):
    ask = client(make_workspace(tmp_path, promoted=None))
    assert ask.get("/healthz").status_code == 200
    assert ask.get("/readyz").status_code == 503
    answer = recommend(ask, user="ann")
    assert (answer.status_code, answer.json()["error"]) == (503, "not_ready")


def test_a_fault_inside_shows_nothing_of_the_inside(place, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("secret of ann")

    monkeypatch.setattr(Answerer, "similar", broken)
    answer = client(place).post("/v1/similar", json={"item": "a"})
    assert answer.status_code == 500
    assert answer.json()["error"] == "internal"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "a request failed" in caplog.text


def test_a_refused_request_is_not_repeated_to_whoever_reads_the_answer(ask):
    answer = recommend(ask, user="x" * 600)
    assert answer.status_code == 422
    assert "xxx" not in answer.text


def test_figures_count_routes_and_fallbacks_and_hold_no_id(ask):
    recommend(ask, user="nobody-at-all")
    text = ask.get("/metrics").text
    assert 'kgrec_requests_total{route="/v1/recommend",status="200"}' in text
    assert 'kgrec_recommendations_total{based_on="popularity"}' in text
    assert 'kgrec_version_info{version="1"} 1.0' in text
    ask.get("/v1/explain", params={"user": "ann", "item": "f"})
    ask.get("/../../etc/passwd")
    text = ask.get("/metrics").text
    assert "nobody-at-all" not in text
    assert "ann" not in text
    assert "passwd" not in text


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8,
)  # fmt: skip
NAMES = ["user", "history", "k", "exclude", "filter", "explain", "order", "context", "item", "items"]
IDS = st.sampled_from(["ann", "a", "f", "gone", 5, "\x00", "\u2028", ""])
LIKELY = st.fixed_dictionaries(
    {}, optional={"user": IDS, "history": st.lists(IDS), "k": st.integers(1, 9), "item": IDS, "items": st.lists(IDS),
                  "filter": st.dictionaries(st.sampled_from(["genre", "directed_by", "x"]), IDS | ANYTHING)},
)  # fmt: skip


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["recommend", "similar", "score"]),
    body=ANYTHING | LIKELY | st.dictionaries(st.sampled_from(NAMES), ANYTHING | IDS),
)
def test_no_body_breaks_it(ask, path, body):
    answer = ask.post(f"/v1/{path}", content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 404, 422), answer.text
    assert answer.json()["version"] == "1"
