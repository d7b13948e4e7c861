"""Planted figures by unit: a difference that is there, one that is not, and what cannot be paired."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from kgrec import columns as c
from kgrec.evaluation.classification import auc
from kgrec.evaluation.compare import Measured, Outcome, corrected, differences, levels
from kgrec.evaluation.compare_words import ArmKind, headlines, verdicts

NOTHING = Measured(
    *(pl.DataFrame(schema=schema) for schema in (c.PER_USER_SCHEMA, c.PER_ROW_SCHEMA, c.PER_TRIPLE_SCHEMA))
)
USERS = 400


def measured(seed, hits=0.4, sharp=1.0, first=0.3, users=USERS):
    """Figures of a system: its share of hits, how well its probabilities follow the labels, its share of first ranks.

    What is asked is the same for every seed; what is answered is drawn.
    """
    asked, draw = np.random.default_rng(0), np.random.default_rng(seed)
    found = (draw.random(users) < hits) * draw.choice([0.4, 0.7, 1.0], users)
    frame = pl.DataFrame(
        {c.SYSTEM: "model", c.GROUP: "ranking", c.USER_ROW: np.arange(users), "recall@10": found, "ndcg@10": found / 2,
         "hit@10": found > 0}
    ).cast({c.USER_ROW: c.ROW_TYPE})  # fmt: skip
    label = asked.random(users * 3) < 0.5
    chance = 1 / (1 + np.exp(-(sharp * label + draw.normal(size=users * 3))))
    rows = pl.DataFrame(
        {c.GROUP: "click", c.USER_ROW: np.repeat(np.arange(users) - 5, 3).clip(-1), c.LABEL: label,
         c.PROBABILITY: chance}
    ).cast(pl.Schema(c.PER_ROW_SCHEMA))  # fmt: skip
    ranks = np.where(draw.random((200, 2)) < first, 1.0, 10.0)
    triples = pl.DataFrame(
        {c.HEAD_ROW: np.arange(200), c.RELATION_ROW: np.arange(200) % 2, c.TAIL_ROW: np.arange(200),
         c.TAIL_RANK: ranks[:, 0], c.HEAD_RANK: ranks[:, 1]}
    ).cast(pl.Schema(c.PER_TRIPLE_SCHEMA))  # fmt: skip
    return Measured(frame, rows, triples)


def compared(reference, **others):
    return corrected(differences(reference, others, np.random.default_rng(0)))


def outcomes(lines):
    return {(line.arm, line.group, line.metric): line.outcome for line in lines}


def test_a_planted_difference_is_found_and_a_system_of_the_same_quality_is_noise():
    full = [measured(seed) for seed in (1, 2, 3)]
    worse = [measured(seed, hits=0.25, sharp=0.4, first=0.1) for seed in (4, 5, 6)]
    alike = [measured(seed) for seed in (7, 8, 9)]
    found = outcomes(compared(full, worse=worse, alike=alike))
    assert {key[1:] for key in found} == {
        ("ranking", "recall@10"),
        ("ranking", "ndcg@10"),
        ("click", "auc"),
        ("link", "mrr"),
    }
    assert {outcome for (arm, *_), outcome in found.items() if arm == "worse"} == {Outcome.WORSE}
    assert {outcome for (arm, *_), outcome in found.items() if arm == "alike"} == {Outcome.NOISE}
    assert outcomes(compared(worse, full=full))["full", "ranking", "ndcg@10"] is Outcome.BETTER


def test_two_identical_arms_are_inside_the_noise():
    full = [measured(1), measured(2)]
    lines = compared(full, same=full)
    assert {(line.outcome, line.p_holm, line.difference) for line in lines} == {(Outcome.NOISE, 1.0, 0.0)}


def test_a_difference_whose_sign_the_seeds_do_not_share_is_noise_however_small_p_is():
    full = [measured(1), measured(2)]
    mixed = [measured(3, hits=0.05), measured(4, hits=0.6)]
    line = next(line for line in compared(full, mixed=mixed) if line.metric == "recall@10")
    assert line.p_holm < 0.05
    assert line.per_seed[0] < 0 < line.per_seed[1]
    assert line.outcome is Outcome.NOISE


def test_figures_are_the_means_and_areas_of_the_tables():
    one, other = measured(1), measured(2)
    found = levels([one, other], np.random.default_rng(0))
    means = [frame.users["ndcg@10"].mean() for frame in (one, other)]
    assert found["ranking"]["ndcg@10"]["mean"] == pytest.approx(np.mean(means))
    assert found["ranking"]["ndcg@10"]["per_seed"] == pytest.approx(means)
    areas = [auc(frame.rows[c.PROBABILITY].to_numpy(), frame.rows[c.LABEL].to_numpy()) for frame in (one, other)]
    assert found["click"]["auc"]["per_seed"] == pytest.approx(areas)
    low, high = found["click"]["auc"]["interval"]
    assert low < found["click"]["auc"]["mean"] < high
    assert found["ranking"]["num_units"] == USERS
    assert found["click"]["num_units"] == USERS - 5 + 5 * 3, "rows of unknown users stand alone"
    assert found["link"]["num_units"] == 200
    assert "hit@10" not in found["ranking"]


def test_a_baseline_without_seeds_meets_every_seed():
    full, rival = [measured(1), measured(2)], measured(3)
    alone = Measured(rival.users, NOTHING.rows, NOTHING.triples)
    lines = compared(full, ease=[alone])
    assert {line.group for line in lines} == {"ranking"}
    expected = [rival.users["ndcg@10"].mean() - one.users["ndcg@10"].mean() for one in full]
    assert next(line for line in lines if line.metric == "ndcg@10").per_seed == pytest.approx(expected)


def test_what_was_asked_differently_is_not_paired():
    with pytest.raises(ValueError, match="not asked the same ranking"):
        compared([measured(1)], other=[measured(1, users=399)])


def test_segments_are_cut_and_a_segment_of_nobody_says_nothing():
    one = measured(1)
    few = one.of_users(pl.Series([0, 1, 2], dtype=c.ROW_TYPE))
    assert few.users.height == 3
    assert few.triples.height == 0
    assert one.of_relations([1]).triples.height == 100
    nobody = one.of_users(pl.Series([], dtype=c.ROW_TYPE))
    assert differences([nobody], {"same": [nobody]}, np.random.default_rng(0)) == []


def words(full, kinds, seeds=3, baselines=None, segments=(), **others):
    lines = compared(full, **others)
    against = compared(full, **baselines) if baselines else []
    return verdicts("full", lines, segments, against, kinds, seeds)


def test_the_verdict_says_what_the_graph_is_worth():
    full = [measured(seed) for seed in (1, 2, 3)]
    worse, alike = [measured(s, hits=0.2) for s in (4, 5, 6)], [measured(s) for s in (7, 8, 9)]
    kinds = {"kg_off": ArmKind.GRAPH_OFF, "kg_shuffled": ArmKind.GRAPH_SHUFFLED}
    said = words(full, kinds, kg_off=worse, kg_shuffled=alike)
    assert said[0].startswith("Ranking: the graph helps (NDCG@10 ")
    assert "true or shuffled, the difference is inside the noise" in said[0]
    said = words(worse, kinds, kg_off=full, kg_shuffled=full)
    assert "the graph does not help, it is better without" in said[0]
    assert "with or without the graph, the difference is inside the noise" in words(full, kinds, kg_off=alike)[0]


def test_a_small_p_that_the_seeds_contradict_is_explained():
    full = [measured(1), measured(2)]
    mixed = [measured(3, hits=0.05), measured(4, hits=0.6)]
    said = words(full, {"kg_off": ArmKind.GRAPH_OFF}, kg_off=mixed)
    assert "the difference is inside the noise (NDCG@10 " in said[0]
    assert ", but not every seed says so)" in said[0]
    alike = [measured(7), measured(8)]
    assert "not every seed" not in words(full, {"kg_off": ArmKind.GRAPH_OFF}, kg_off=alike)[0]


def test_negative_transfer_is_said_by_task_and_segment():
    joint = [measured(seed, sharp=0.5, hits=0.2) for seed in (1, 2, 3)]
    alone = [measured(seed, sharp=1.2, hits=0.5) for seed in (4, 5, 6)]
    segment = corrected(differences(joint, {"click_only": alone}, np.random.default_rng(0), segment="new users"))
    said = words(joint, {"click_only": ArmKind.ALONE}, click_only=alone, segments=segment)
    click = next(sentence for sentence in said if " click:" in sentence)
    assert click.startswith("Negative transfer in click: alone it is better than with the other tasks (AUC ")
    assert click.endswith("; better alone for new users.")
    assert any(s.startswith("Learning together helps click") for s in words(alone, {"c": ArmKind.ALONE}, c=joint))


def test_baselines_other_arms_and_a_single_seed_are_spoken_of():
    full, worse = [measured(1)], [measured(4, hits=0.1)]
    said = words(full, {"balancing=fixed": ArmKind.OTHER}, 1, {"ease": worse}, **{"balancing=fixed": full})
    assert "balancing=fixed, ranking: the difference to full is inside the noise" in said[0]
    assert any(sentence.startswith("Ranking: full is better than the best baseline") for sentence in said)
    assert said[-1].startswith("One seed:")


def test_the_headline_of_ranking_is_ndcg_at_the_first_k():
    lines = compared([measured(1)], other=[measured(2)])
    assert {(line.group, line.metric) for line in headlines(lines)} == {
        ("ranking", "ndcg@10"),
        ("click", "auc"),
        ("link", "mrr"),
    }
