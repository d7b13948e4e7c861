"""What a report's card of the data says."""

from __future__ import annotations

from types import SimpleNamespace

from kgrec.chain.reporting import _data_card


def test_the_card_names_the_largest_relations_first_and_rounds_figures() -> None:
    graph = {
        "triples": 1510,
        "hubs": [{"label": "", "id": "m.1", "degree": 1200}],
        "triples_per_relation": {"a": 6, "b": 1500, "c": 4},
        "fan_out_of_items": {"max": 267, "mean": 57.26516052318668},
    }
    parts = {
        "ingest": SimpleNamespace(facts={}),
        "split": SimpleNamespace(facts={}),
        "graph": SimpleNamespace(facts=graph),
    }
    card = _data_card(parts)["Knowledge graph"]
    assert card["largest relations"] == "b (1,500), a (6), c (4)"
    assert card["largest hubs"] == "m.1 (1,200)"
    assert card["fan out of items"] == "max: 267, mean: 57.3"
