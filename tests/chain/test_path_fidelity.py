"""Scores on a changed graph: as served where nothing changes, and lower where the planted path is gone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from kgrec.artifacts import MANIFEST, load_artifact
from kgrec.chain.completing import learned_links
from kgrec.chain.path_fidelity import GraphRescorer, PathStarts, kernel_setting, path_fidelity
from kgrec.serving.fidelity import probes
from kgrec.serving.recommend import load
from kgrec.workspace import Workspace


@pytest.fixture(scope="module")
def world(tiny):
    place = Workspace(tiny.workspace)
    model = learned_links(place)

    def part(kind):
        found = [load_artifact(path.parent, kind) for path in (place.store.root / kind).glob(f"*/{MANIFEST}")]
        return next(one for one in found if one.digest == model.trained.inputs[kind])

    setting = kernel_setting(model.trained, part("baselines"))
    return load(tiny.workspace), GraphRescorer(part("split"), model.graph, model.trained, *setting)


def test_on_the_graph_as_it_is_the_scores_are_those_served(world):
    version, rescorer = world
    asked = probes(version, version.users.entries.head(20).to_list())
    assert len(asked) > 10
    told = [(torch.as_tensor(one.asked.history_H), one.found.item_row) for one in asked]
    served = [one.found.parts["trained"] + one.found.parts.get("kernel", 0.0) for one in asked]
    np.testing.assert_allclose(rescorer.scores([], told), served, atol=1e-4)


def test_a_pair_of_nodes_that_is_not_there_changes_nothing_and_an_edge_of_the_item_does(world):
    version, rescorer = world
    (probe,) = probes(version, ["u00"])
    told = [(torch.as_tensor(probe.asked.history_H), probe.found.item_row)]
    item, whole = probe.found.item_row, rescorer.scores([], told)
    stranger = next(node for node in range(90, 110) if node not in rescorer.around(item))
    assert rescorer.scores([(item, stranger)], told) == pytest.approx(whole)
    assert abs(rescorer.scores([(item, node) for node in rescorer.around(item)], told) - whole) > 1e-3


def test_the_planted_genre_carries_more_than_the_maker(world):
    """A user's taste is a genre; makers mostly keep to one, and are the control where the path is the genre's."""
    version, rescorer = world
    asked = [
        probe for probe in probes(version, version.users.entries.head(60).to_list())
        if probe.found.paths and version.paths.relation(probe.found.paths[0].steps[0].relation_row) == "genre"
    ]  # fmt: skip
    found = path_fidelity(rescorer, asked[:15], np.random.default_rng(3))
    assert len(found.named_P) >= 5
    assert found.named_P.mean() > found.random_P.mean()
    at_once = path_fidelity(rescorer, asked[:15], np.random.default_rng(3), together=4)
    assert len(at_once.named_P) == len(found.named_P)
    assert at_once.named_P.mean() > at_once.random_P.mean()


def test_the_control_is_drawn_where_it_may_be(world):
    version, rescorer = world
    asked = probes(version, version.users.entries.head(30).to_list())
    every = path_fidelity(rescorer, asked, np.random.default_rng(3), together=99)
    assert len(every.named_P)
    nowhere = path_fidelity(rescorer, asked, np.random.default_rng(3), control=lambda _: {10**6})
    assert not len(nowhere.named_P), "no probe without something to compare with"
    starts = PathStarts(version.paths)
    for probe in asked[:5]:
        item, history = probe.found.item_row, set(probe.asked.history_H.tolist())
        around = [set(rescorer.around(node)) for node in sorted(starts(probe))]
        assert starts(probe) <= set(version.paths.paths(item, [*history], 999)[0].via) | set(rescorer.around(item))
        assert all(near & history or any(set(rescorer.around(one)) & history for one in near) for near in around)
    beside = path_fidelity(rescorer, asked, np.random.default_rng(3), together=99, control=starts)
    assert 0 < len(beside.named_P) <= len(every.named_P)


def test_the_report_says_how_far_reasons_can_be_believed(tiny):
    card = json.loads(tiny.released.report.with_suffix(".json").read_text())["data_card"]["Explanations"]
    assert card["probes"] == 20
    named, other = list(card.values())[1:3]
    assert named > other
    assert "Explanations" in tiny.released.report.read_text()
