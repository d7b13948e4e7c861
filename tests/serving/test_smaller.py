from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from kgrec.artifacts import ArtifactStore
from kgrec.serving import package
from kgrec.serving.forget import without
from kgrec.serving.index import build_index
from kgrec.serving.neighbours import Neighbours
from kgrec.serving.package import write_version
from kgrec.serving.recommend import Version
from kgrec.serving.smaller import (
    SCALE,
    Entities,
    Precision,
    ServingConfig,
    as_stored,
    idle_entities,
    packed,
    unpacked,
)
from tests.serving.small_version import USERS, ExcludeSeen, Target, make_parts
from tests.serving.test_neighbours import ITEMS, BlockWeights, filled, world

SMALL = [Precision.HALF, Precision.INT8]


def tensors(seed=0, users=6, density=0.3):
    numbers = np.random.default_rng(seed)
    near = world(seed, BlockWeights(linear=2.0, kernel=0.5), density)
    found = {name: tensor.numpy() for name, tensor in near.tensors().items()}
    found["item_vectors_ID"] = (numbers.normal(size=(ITEMS, 5)) * [1, 10, 0.01, 0, 1]).astype(np.float32)
    found["user_vectors_UD"] = numbers.normal(size=(users, 5)).astype(np.float32)
    found["block_widths"] = np.array([4])
    found["bias_D"] = numbers.normal(size=5).astype(np.float32)
    return found


@pytest.mark.parametrize("precision", list(Precision))
def test_what_is_stored_comes_back_within_half_a_step(precision):
    before = tensors()
    stored = packed(before, precision)
    after = unpacked(stored)
    assert list(after) == list(before)
    for name in ("bias_D", "block_widths", "block_weights", "linear_ends", "linear_items"):
        assert np.array_equal(after[name], before[name]), name
    step = {Precision.FULL: 0.0, Precision.HALF: 2.0**-11, Precision.INT8: 0.5 / 127}[precision]
    for name in ("item_vectors_ID", "user_vectors_UD"):
        largest_D = np.abs(before[name]).max(axis=0)
        assert (np.abs(after[name] - before[name]) <= step * largest_D * 1.001 + 1e-7).all(), name
        assert (precision is Precision.FULL) == np.array_equal(after[name], before[name])
    bytes_of = {one: sum(array.nbytes for array in tables.values()) for one, tables in ((0, before), (1, stored))}
    assert (bytes_of[1] < bytes_of[0]) == (precision is not Precision.FULL)


@pytest.mark.parametrize("density", [0.3, 0.9])
@pytest.mark.parametrize("precision", SMALL)
def test_each_items_neighbours_have_a_scale_of_their_own(precision, density):
    before = tensors(1, density=density)
    if density > 0.5:
        before["linear_values"][0] *= 1000
    else:
        before["linear_values"][: before["linear_ends"][0]] *= 1000
    after = unpacked(packed(before, precision))
    near, far = (filled(Neighbours.read(one).matrices["linear"]) for one in (before, after))
    step = 0.5 / 127 if precision is Precision.INT8 else 2.0**-11
    assert (np.abs(near - far) <= 1.001 * step * np.abs(near).max(axis=1, keepdims=True)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(SMALL))
def test_packing_what_came_back_gives_the_same_bytes(seed, precision):
    once = packed(tensors(seed), precision)
    again = packed(unpacked(once), precision)
    for name, array in once.items():
        if name.endswith(SCALE):
            np.testing.assert_allclose(again[name], array, rtol=1e-6)
        else:
            assert np.array_equal(again[name], array), name


def test_zeros_and_tensors_of_torch_go_through():
    found = as_stored({"weight": torch.zeros(3, 2), "bias": torch.ones(2)}, Precision.INT8)
    assert found["weight"].tolist() == [[0.0, 0.0]] * 3
    assert found["bias"].tolist() == [1.0, 1.0]


def version_of(store, serving):
    log, graph, trained, index = make_parts(store)
    if serving.precision is not Precision.FULL:
        stored = unpacked(packed(load_file(trained.file(package.VECTORS)), serving.precision))
        bound = {"bound_to": index.facts["bound_to"]}
        index = store.build(
            "index", {}, serving.model_dump(mode="json"),
            lambda out: build_index(stored["item_vectors_ID"][:6], np.arange(6), out) | bound,
        )[0]  # fmt: skip

    def make(out):
        facts = write_version(out, log, None, graph, trained, index, exclude_seen=ExcludeSeen.ANY,
                              target=Target.CLICK, name="shop", serving=serving)  # fmt: skip
        return facts | {"index": {"threads": 1}}

    return store.build("version", {}, serving.model_dump(mode="json"), make)[0]


@pytest.mark.parametrize("precision", SMALL)
def test_a_small_version_answers_as_the_whole_one_and_can_forget(tmp_path, precision):
    store = ArtifactStore(tmp_path)
    whole, small = (version_of(store, ServingConfig(precision=one)) for one in (Precision.FULL, precision))
    answers = [Version(one).recommend(USERS, k=3) for one in (whole, small)]
    assert answers[0]["item"].to_list() == answers[1]["item"].to_list()
    np.testing.assert_allclose(answers[0]["score"], answers[1]["score"], atol=0.02)
    forgotten = store.build("version", {"of": "ann"}, small.config, lambda out: without(small, "ann", out))[0]
    assert Version(forgotten).recommend(["bob"], k=3)["item"].to_list() == answers[0]["item"].to_list()[3:6]
    assert not unpacked(load_file(forgotten.file(package.VECTORS)))["user_vectors_UD"][0].any()


def ways(edges, items, longest=4):
    """Return every way of up to `longest` steps between two items over entities, the slow way."""
    near = {}
    for one, other in edges:
        near.setdefault(one, set()).add(other)
        near.setdefault(other, set()).add(one)
    found, going = set(), [(item,) for item in range(items)]
    for _ in range(longest):
        going = [(*way, node) for way in going for node in near.get(way[-1], ()) if node not in way]
        found |= {way for way in going if way[-1] < items}
        going = [way for way in going if way[-1] >= items]
    return found


@settings(max_examples=80, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=22))
def test_entities_between_items_stay_and_hanging_ones_go(edges):
    ends = np.array(sorted(edges), dtype=np.int64).reshape(-1, 2)
    idle = idle_entities(ends[:, 0], ends[:, 1], 4, 12)
    assert not idle[:4].any()
    kept = [tuple(edge) for edge in ends.tolist() if not idle[edge].any()]
    assert ways(kept, 4) == ways(edges, 4)
    for node in np.flatnonzero(~idle[4:]) + 4:
        assert len({*itertools.chain(*(edge for edge in kept if node in edge))} - {node}) >= 2, "nothing hangs"


def test_a_version_without_idle_entities_keeps_its_reasons(tmp_path):
    store = ArtifactStore(tmp_path)
    whole, small = (version_of(store, ServingConfig(entities=one)) for one in Entities)
    asked = [Version(one).recommend(USERS, k=3, explain=True) for one in (whole, small)]
    assert asked[0].equals(asked[1])
