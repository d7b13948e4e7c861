"""The figures by unit say what the figures of the part say."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from kgrec import columns as c
from kgrec.artifacts import ArtifactStore
from kgrec.chain.judge import METRICS, PER_ROW, PER_TRIPLE, PER_USER
from kgrec.chain.release import read_figures
from kgrec.evaluation.classification import classification_metrics, grouped_auc
from kgrec.evaluation.link_prediction import summarise_ranks
from kgrec.evaluation.significance import mean_of, randomisation_test
from kgrec.stages import RunResult


def evaluated_of(result: RunResult):
    store = ArtifactStore(result.workspace / "artifacts")
    keys = [path.name for path in (store.root / "evaluate").iterdir()]
    found = [store.find("evaluate", key) for key in keys]
    return next(artifact for artifact in found if artifact is not None and artifact.has(METRICS))


def test_the_means_over_users_are_the_ranking_of_model_and_baselines(tiny: RunResult) -> None:
    evaluated = evaluated_of(tiny)
    users = pl.read_parquet(evaluated.file(PER_USER))
    metrics, baselines = read_figures(evaluated)
    assert set(users[c.SYSTEM]) == {"model", *baselines}
    for system, ranking in {"model": metrics["test"]["ranking"], **baselines}.items():
        lines = users.filter((pl.col(c.SYSTEM) == system) & (pl.col(c.GROUP) == "ranking"))
        assert lines.height == ranking["num_users"]
        for name in (name for name in ranking if "@" in name):
            assert lines[name].mean() == pytest.approx(ranking[name], abs=1e-12)
    cold = users.filter((pl.col(c.SYSTEM) == "model") & (pl.col(c.GROUP) == "ranking_cold"))
    assert cold["recall@10"].mean() == pytest.approx(metrics["test"]["ranking_cold"]["recall@10"])
    assert cold.height == metrics["test"]["ranking_cold"]["num_users"]
    order = users.filter(pl.col(c.GROUP) == "ranking").group_by(c.SYSTEM, maintain_order=True).agg(c.USER_ROW)
    assert order[c.USER_ROW].n_unique() == 1, "every system is judged on the same users in the same order"


def test_the_rows_and_triples_give_the_figures_back(tiny: RunResult) -> None:
    evaluated = evaluated_of(tiny)
    test = read_figures(evaluated)[0]["test"]
    rows = pl.read_parquet(evaluated.file(PER_ROW)).filter(pl.col(c.GROUP) == "conversion")
    judged = rows[c.PROBABILITY].to_numpy(), rows[c.LABEL].to_numpy()
    found = classification_metrics(*judged) | grouped_auc(*judged, rows[c.USER_ROW].to_numpy())
    assert found == pytest.approx(test["conversion"])
    ranks = pl.read_parquet(evaluated.file(PER_TRIPLE)).select(c.TAIL_RANK, c.HEAD_RANK).to_numpy()
    assert summarise_ranks(ranks) == pytest.approx(test["link"])


def test_a_runs_report_holds_intervals_and_the_test_against_the_best_baseline(tiny: RunResult) -> None:
    report = json.loads(tiny.released.report.with_name("report.json").read_text())
    ranking, baselines = read_figures(evaluated_of(tiny))[0]["test"]["ranking"], report["baselines"]
    for metric in ("recall@5", "ndcg@5", "mrr@10"):
        low, high = report["intervals"][metric]
        assert low < ranking[metric] < high
    assert set(report["against"]) == set(baselines)
    users = pl.read_parquet(evaluated_of(tiny).file(PER_USER)).filter(pl.col(c.GROUP) == "ranking")
    own, popular = (users.filter(pl.col(c.SYSTEM) == name)["ndcg@5"].to_numpy() for name in ("model", "popularity"))
    p = randomisation_test([mean_of(own) - mean_of(popular)], np.random.default_rng(0))[0]
    assert p - 0.02 <= report["against"]["popularity"]["p"] <= min(1.0, p * len(baselines) + 0.02)
    assert "noise (p" in report["verdict"]
