from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kgrec.errors import InputError
from kgrec.serving.policy import Evidence, Policy, examine, read_policy

SHIPPED = Path(__file__).parents[2] / "mlflow" / "policy.toml"
METRIC = "ndcg@10"
RNG = np.random.default_rng(5)
BASE_U = RNG.random(400)
EVENTS_U = np.repeat([1, 10, 50, 200], 100)


def evidence(shift=0.0, rival="promoted", **more):
    """A candidate that is `shift` above its rival for every user, give or take."""
    noise = RNG.normal(0, 0.05, len(BASE_U))
    return Evidence(METRIC, BASE_U + shift + noise - noise.mean(), {rival: BASE_U}, EVENTS_U, **more)


def verdicts(rules, given):
    return [enough for enough, _ in examine(Policy.model_validate(rules), given)]


@pytest.mark.parametrize("rival", ["promoted", "popularity"])
@pytest.mark.parametrize(
    ("shift", "not_worse", "better"), [(0.05, True, True), (0.0, True, False), (-0.05, False, False)]
)
def test_a_paired_test_tells_gain_noise_and_loss_apart(rival, shift, not_worse, better):
    key = "promoted" if rival == "promoted" else "baselines"
    other = "baselines" if rival == "promoted" else "promoted"
    found = evidence(shift, rival)
    assert verdicts({"paired": {key: "not_worse", other: "better", "rounds": 999}}, found) == [not_worse]
    assert verdicts({"paired": {key: "better", other: "not_worse", "rounds": 999}}, found) == [better]


def test_significance_and_rounds_have_an_effect():
    noise = np.zeros(12)
    noise[:8] = 1.0  # p of about .008: eight differences of one sign
    found = Evidence(METRIC, BASE_U[:12] - noise, {"promoted": BASE_U[:12]}, None)
    assert verdicts({"paired": {"significance": 0.05, "rounds": 9999}}, found) == [False]
    assert verdicts({"paired": {"significance": 0.001, "rounds": 9999}}, found) == [True]
    text = [examine(Policy.model_validate({"paired": {"rounds": rounds}}), found)[0][1] for rounds in (99, 9999)]
    assert text[0] != text[1]


def test_the_same_evidence_gives_the_same_verdict():
    policy, found = Policy.model_validate({"paired": {"rounds": 499}}), evidence()
    assert examine(policy, found) == examine(policy, found)


def test_a_segment_that_loses_is_found_where_the_whole_gains():
    candidate = BASE_U + 0.1
    candidate[EVENTS_U == 10] -= 0.3
    found = Evidence(METRIC, candidate, {"promoted": BASE_U}, EVENTS_U)
    checks = examine(Policy.model_validate({"segments": {}}), found)
    assert [enough for enough, _ in checks] == [True, False, True, True]
    assert "100 users with 5 or more events before, under 20" in checks[1][1]
    assert verdicts({"segments": {"largest_loss": 0.9}}, found) == [True] * 4
    assert verdicts({"segments": {"least_users": 101}}, found) == []
    assert verdicts({"segments": {"bounds": [60]}}, found) == [True, True]


def test_the_other_rules_have_their_edges():
    found = Evidence(METRIC, ece={"click": 0.04, "conversion": 0.06}, index_recall=0.95, megabytes=10.0, p99_ms=5.0)
    assert verdicts({"calibration": {"largest_ece": 0.06}}, found) == [True, True]
    assert verdicts({"calibration": {"largest_ece": 0.05}}, found) == [True, False]
    assert verdicts({"index": {"least_recall": 0.95}}, found) == [True]
    assert verdicts({"index": {"least_recall": 0.96}}, found) == [False]
    assert verdicts({"answers": {"largest_mb": 10, "largest_p99_ms": 5}}, found) == [True, True]
    assert verdicts({"answers": {"largest_mb": 9.9}}, found) == [False]
    assert verdicts({"answers": {"largest_p99_ms": 4.9}}, found) == [False]
    assert verdicts({}, found) == []


@pytest.mark.parametrize(("served", "passes"), [(0.5, True), (0.496, True), (0.494, False), (0.6, True)])
def test_a_smaller_version_may_lose_a_share_of_the_full_ones_figure(served, passes):
    found = Evidence(METRIC, smaller={"ranking/ndcg@10": {"full": 0.5, "served": served}})
    assert verdicts({"smaller": {"largest_loss": 0.01}}, found) == [passes]
    assert verdicts({"smaller": {}}, Evidence(METRIC)) == []


def test_what_cannot_be_judged_is_said_and_passes():
    checks = examine(
        Policy.model_validate({"paired": {}, "segments": {}, "index": {}, "answers": {}}), Evidence(METRIC)
    )
    assert all(enough for enough, _ in checks)
    assert [text for _, text in checks] == [
        "no figures by user: nothing was tested in pairs", "no promoted version to compare segments with"
    ]  # fmt: skip


def test_the_shipped_policy_is_valid_and_uses_every_rule():
    policy = read_policy(SHIPPED)
    assert all(getattr(policy, name) is not None for name in Policy.model_fields)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[pared]\n", "did you mean 'paired'?"), ("[paired]\nrunds = 5\n", "did you mean 'rounds'?"),
     ("[paired]\nsignificance = 2\n", "paired.significance"), ("[paired\n", "broken TOML"),
     ('[paired]\npromoted = "best"\n', "paired.promoted")],
)  # fmt: skip
def test_a_policy_that_means_nothing_is_refused(tmp_path, text, said):
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_policy(path)
    assert said in str(error.value)


def test_a_policy_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_policy(tmp_path / "none.toml")
