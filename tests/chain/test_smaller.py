"""[serving] through the whole chain: what is judged is what is served, and what it costs is gated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kgrec.artifacts import load_artifact
from kgrec.chain.smaller import SMALLER
from kgrec.serving.recommend import load
from kgrec.serving.versions import read_registry
from kgrec.stages import run
from kgrec.workspace import Workspace

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.toml"
QUICK = ["training.epochs=2", "training.towers_alone=false", "gate.baselines=[]", "gate.tolerance=0.9",
         "training.relations_every=0"]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run the chain in two precisions on one workspace; return result, version and evaluation of each."""
    folder = tmp_path_factory.mktemp("smaller")
    policy = folder / "policy.toml"
    policy.write_text("[smaller]\nlargest_loss = 0.0\n")
    found = {}
    for precision, entities in (("float32", "all"), ("int8", "between_items")):
        asked = [*QUICK, f"serving.precision={precision}", f"serving.entities={entities}", f"gate.policy={policy}"]
        result = run(CONFIG, folder / "workspace", overrides=asked)
        place = Workspace(folder / "workspace")
        record = read_registry(place).find(result.released.version)
        version = load_artifact(place.store.path("version", record.key))
        evaluated = place.store.with_digest("evaluate", version.inputs["evaluate"])
        found[precision] = (result, version, evaluated, load(place.root, result.released.version))
    return found


def test_training_is_not_repeated_and_files_are_smaller(made):
    assert made["int8"][0].stages["train"]["cached"]
    sizes = {one: {name: (version.path / name).stat().st_size for name in version.files}
             for one, (_, version, _, _) in made.items()}  # fmt: skip
    for name in ("vectors.safetensors", "towers.safetensors"):
        assert sizes["int8"][name] < sizes["float32"][name], name
    rows = {
        one: pl.read_parquet(version.file("graph_triples.parquet")).height for one, (_, version, _, _) in made.items()
    }
    assert 0 < rows["int8"] <= rows["float32"]


def test_what_it_costs_on_validation_is_a_fact_and_the_policy_looks_at_it(made):
    assert SMALLER not in made["float32"][2].facts
    result, _, evaluated, _ = made["int8"]
    costs = evaluated.facts[SMALLER]
    assert costs["ranking/ndcg@10"] == {
        "full": made["float32"][0].metrics["validation"]["ranking"]["ndcg@10"],
        "served": result.metrics["validation"]["ranking"]["ndcg@10"],
    }
    assert all(one["served"] == pytest.approx(one["full"], abs=0.03) for one in costs.values())
    worse = {name for name, one in costs.items() if one["served"] < one["full"]}
    assert len([reason for reason in result.released.verdict.reasons if "as stored" in reason]) == len(costs)
    refused = {reason.split()[1] for reason in result.released.verdict.failures if "as stored" in reason}
    assert refused == worse, "with a bound of 0, whatever lost anything"
    assert result.released.promoted == (not worse)
    assert not [reason for reason in made["float32"][0].released.verdict.reasons if "as stored" in reason]


def test_served_scores_are_those_of_the_model_in_full_but_for_rounding(made):
    whole = made["float32"][3]
    users = whole.users.entries.head(30).to_list()
    small = made["int8"][3]
    one, other = (version.scores_of(whole.users.entries.head(30), {
        user: version.ask(user).history_H for user in users}) for version in (whole, small))  # fmt: skip
    assert 0 < np.abs(one - other).max() < 0.03
    lists = small.recommend(users, k=5)
    for user, found in lists.group_by("user", maintain_order=True):
        scores = other[users.index(user[0])]
        rows = [small.item_rows[item] for item in found["item"]]
        np.testing.assert_allclose(found["score"], scores[rows], atol=1e-5)
