"""Which kind of index is served, and how hard it looks."""

from __future__ import annotations

import numpy as np

from kgrec.artifacts import ArtifactStore
from kgrec.serving.index import IndexConfig, KindName, build_index
from kgrec.serving.index_choice import AT, choose

QUERIES = 200


class Stepped:
    """Finds a known share of the true places: of each effort one for even queries and one for odd ones."""

    def __init__(self, shares):
        self.shares, self.efforts, self.effort = shares, list(shares), ""

    def set_effort(self, effort):
        self.effort = effort

    def nearest(self, queries_QD, k):
        share = self.shares[self.effort][int(queries_QD[0, 0]) % 2]
        found_QK = np.tile(np.arange(k), (len(queries_QD), 1))
        found_QK.reshape(-1)[: round((1 - share) * found_QK.size)] = -1
        return found_QK


def choice(shares, **settings):
    queries_QD = np.arange(QUERIES, dtype=np.float32)[:, None]
    config = IndexConfig(kind=KindName.HNSW, latency_ms=1e6, **settings)
    truth_QK = np.tile(np.arange(AT), (QUERIES, 1))
    return choose(config, 10**6, queries_QD, lambda *_: truth_QK, {KindName.HNSW: lambda: Stepped(shares)})


def test_the_effort_is_raised_until_the_recall_is_passed_by_two_standard_errors():
    found = choice({"little": (0.995, 0.985), "more": (0.998, 0.992), "most": (1.0, 1.0)})
    assert (found.kind, found.tried[0].effort, found.tried[0].recall) == (KindName.HNSW, "more", 0.992)


def test_what_only_the_tuned_queries_say_is_not_believed():
    found = choice({"little": (1.0, 0.98), "most": (1.0, 1.0)})
    assert found.kind is KindName.EXACT
    assert found.tried[0].refused == "recall@10 0.9800 is below 0.99"


def test_a_recall_of_everything_can_be_reached():
    assert choice({"most": (1.0, 1.0)}, recall=1.0).kind is KindName.HNSW


def test_short_codes_are_enough_for_items_that_lie_close_together(tmp_path):
    rng = np.random.default_rng(1)
    centres_CD = unit(rng.standard_normal((20, 16)))
    items_ID, users_QD = (
        unit(centres_CD[rng.integers(0, 20, count)] + 0.05 * rng.standard_normal((count, 16))) for count in (6_000, 200)
    )
    config = IndexConfig(kind=KindName.IVF_PQ, threads=1, latency_ms=1e6)
    artifact, _ = ArtifactStore(tmp_path).build(
        "index", {}, {}, lambda out: build_index(items_ID, np.arange(6_000), out, config, users_QD)
    )
    assert artifact.facts["kind"] == "ivf_pq"
    assert artifact.facts["tried"][0]["effort"].endswith("k_factor_rf=10")  # four hundred are not needed


def unit(vectors_ND):
    return (vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype(np.float32)
