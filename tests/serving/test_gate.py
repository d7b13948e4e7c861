from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kgrec.serving.gate import GateConfig, judge

METRIC = "ndcg@10"
FIGURE = st.floats(0, 1, allow_nan=False)
BOTH = {"popularity": {METRIC: 0.10}, "item_knn": {METRIC: 0.20}}


def verdict(own=0.3, baselines=BOTH, promoted=None, load_fault=None, baselines_asked=None, **config):
    return judge(GateConfig(baselines=baselines_asked, **config), {METRIC: own}, baselines, promoted, load_fault)


def test_a_candidate_above_everything_passes_with_a_sentence_per_comparison():
    found = verdict(promoted=("3", {METRIC: 0.25}))
    assert found.passed
    assert found.failures == ()
    assert len(found.reasons) == 4
    assert found.reasons[0] == "the stored candidate loads and answers"
    assert "ndcg@10 0.3000 is above 0.2500 of the promoted version 3" in found.reasons


def test_each_baseline_alone_can_fail_it():
    for rival in BOTH:
        found = verdict(baselines={name: {METRIC: 0.9 if name == rival else 0.1} for name in BOTH})
        assert not found.passed
        assert len(found.failures) == 1
        assert rival in found.failures[0]
        assert found.reasons[0] == found.failures[0], "what failed comes first"


def test_the_promoted_version_alone_can_fail_it_unless_it_is_not_asked():
    better = ("3", {METRIC: 0.9})
    found = verdict(promoted=better)
    assert not found.passed
    assert "the promoted version 3" in found.failures[0]
    assert verdict(promoted=better, compare_with_promoted=False).passed


def test_a_load_fault_alone_fails_it():
    found = verdict(load_fault="ArtifactError: vectors differ")
    assert not found.passed
    assert found.failures == ("FAILED: the stored candidate cannot answer: ArtifactError: vectors differ",)


def test_a_missing_metric_of_its_own_fails_it():
    found = judge(GateConfig(metric="ndcg@7"), {METRIC: 0.9}, BOTH, None, None)
    assert not found.passed
    assert "ndcg@7" in found.failures[0]
    assert "evaluation.k" in found.failures[0]


def test_rivals_without_the_metric_or_not_asked_for_are_not_compared():
    assert verdict(baselines={"popularity": {"recall@10": 0.9}, "item_knn": {}}).passed
    assert verdict(baselines={**BOTH, "ease": {METRIC: 0.9}}, baselines_asked=("popularity", "item_knn")).passed
    assert not verdict(baselines={**BOTH, "ease": {METRIC: 0.9}}).passed, "left out: all that ran"
    assert not judge(GateConfig(baselines=("ease",)), {METRIC: 0.3}, {"ease": {METRIC: 0.9}}, None, None).passed


def test_nothing_to_compare_passes_on_loading_alone():
    assert judge(GateConfig(), {}, {}, None, None).reasons == ("the stored candidate loads and answers",)


@pytest.mark.parametrize(
    ("own", "passes", "word"),
    [(0.98, True, "within the tolerance of 2%"), (0.97999, False, "is below"), (1.0, True, "equals"),
     (1.1, True, "above")],
)  # fmt: skip
def test_the_edge_of_the_tolerance(own, passes, word):
    found = verdict(own=own, baselines={"popularity": {METRIC: 1.0}})
    assert found.passed is passes
    assert any(word in reason for reason in found.reasons)


def test_without_tolerance_equal_is_enough_and_less_is_not():
    rival = {"popularity": {METRIC: 0.2}}
    assert verdict(own=0.2, baselines=rival, tolerance=0).passed
    assert not verdict(own=math.nextafter(0.2, 0), baselines=rival, tolerance=0).passed
    assert verdict(own=0.0, baselines={"popularity": {METRIC: 0.0}}).passed


def test_a_figure_that_is_no_number_never_passes():
    assert not verdict(own=math.nan).passed
    assert not verdict(baselines={"popularity": {METRIC: math.nan}}).passed


@given(FIGURE, st.lists(FIGURE, min_size=2, max_size=2), FIGURE | st.none(), st.floats(0, 0.99), st.booleans())
def test_it_never_passes_when_a_rival_is_beyond_the_tolerance(own, rivals, champion, tolerance, fault):
    baselines = {name: {METRIC: value} for name, value in zip(BOTH, rivals, strict=True)}
    promoted = None if champion is None else ("1", {METRIC: champion})
    found = verdict(own, baselines, promoted, "broken" if fault else None, tolerance=tolerance)
    all_rivals = [*rivals, *([] if champion is None else [champion])]
    beaten = [rival for rival in all_rivals if own < rival * (1 - tolerance)]
    assert found.passed == (not beaten and not fault)
    assert len(found.failures) == len(beaten) + fault
    assert found.passed == (not found.failures)
    assert len(found.reasons) == len(all_rivals) + 1


@pytest.mark.parametrize(
    "raw",
    [{"metric": "auc"}, {"metric": "ndcg"}, {"metric": "ndcg@x"}, {"tolerance": -0.1}, {"tolerance": 1.0}, {"k": 10}],
)
def test_rules_that_mean_nothing_are_refused(raw):
    with pytest.raises(ValidationError):
        GateConfig.model_validate(raw)


def test_every_rule_has_an_effect():
    default = verdict(own=0.199, promoted=("1", {METRIC: 0.1}))
    assert default.passed
    assert not verdict(own=0.199, tolerance=0.0).passed
    assert not verdict(own=0.05).passed
    assert judge(GateConfig(baselines=()), {METRIC: 0.05}, BOTH, None, None).passed
    figures = {METRIC: 0.05, "recall@10": 0.9}
    rivals = {name: {METRIC: 0.5, "recall@10": 0.1} for name in BOTH}
    assert not judge(GateConfig(), figures, rivals, None, None).passed
    assert judge(GateConfig(metric="recall@10"), figures, rivals, None, None).passed
