from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kgrec.chain.questions import Judge
from kgrec.config import TaskName
from kgrec.evaluation.ranking import EvaluationConfig, ExcludeSeen, Target
from tests.chain.small_parts import ENTITIES, TRIPLES, parts

CLICK, CONVERSION, KG = TaskName.CLICK, TaskName.CONVERSION, TaskName.KG
VECTORS = {
    "user_vectors_UD": torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.6, 0.8]]),
    "item_vectors_ID": torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]]),
    "item_fold_ID": torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [-3.0, 4.0], [0.0, 0.0]]),
}


class Net:
    """Stands for a trained network: its answers are written down."""

    def __init__(self, chance=None, best_tail=6):
        self.towers = None if chance is None else object()
        self.shape = SimpleNamespace(num_entities=ENTITIES)
        self.chance, self.best_tail = chance or {}, best_tail
        self.asked = None

    def export(self):
        return SimpleNamespace(user_own_UD=None, **VECTORS)

    def item_rows(self):
        return None

    def predict(self, user_N, item_N, numeric_NF, categorical_NC, encoded):
        self.asked = SimpleNamespace(user_N=user_N, item_N=item_N, numeric_NF=numeric_NF, encoded=encoded)
        return {name: torch.tensor(values) for name, values in self.chance.items()}

    def score_tails(self, head_B, relation_B):
        scores_BE = torch.zeros(len(head_B), ENTITIES)
        scores_BE[:, self.best_tail] = 1.0
        return scores_BE

    def score_heads(self, relation_B, tail_B):
        scores_BE = torch.zeros(len(tail_B), ENTITIES)
        scores_BE[torch.arange(len(tail_B)), 2] = 1.0
        return scores_BE


def judge(folder, *tasks, k=(2, 3), features=True, impressions=True, **settings):
    log, encoded, graph = parts(folder, impressions=impressions)
    return Judge(EvaluationConfig(k=k, **settings), log, encoded if features else None, graph, tasks)


def test_users_of_train_have_their_vector_others_are_folded_in_or_blank(tmp_path):
    asker = judge(tmp_path, CLICK)
    users_UD = asker.user_vectors(VECTORS, asker.question("test").history)
    assert users_UD[:2].tolist() == [[1, 0], [0, 1]]
    assert users_UD[2].tolist() == pytest.approx([-0.6, 0.8]), "item 3 of validation, made unit length"
    assert users_UD[3].tolist() == [0, 0]
    users_UD = asker.user_vectors(VECTORS, asker.question("validation").history)
    assert users_UD[2].tolist() == [0, 0], "before validation nothing is known of user 2"


def test_scores_are_dot_products_and_popularity_for_those_without_a_vector(tmp_path):
    asker = judge(tmp_path, CLICK)
    scores = asker.scorer(VECTORS, "test")(torch.tensor([3, 0, 2]))
    assert scores[0].tolist() == [2, 1, 2, 1, 0], "how many users had each item before test"
    assert scores[1].tolist() == pytest.approx([1, 0.8, 0, 0.6, -1])
    assert scores[2].tolist() == pytest.approx([-0.6, 0, 0.8, 0.28, 0.6], abs=1e-6)


def test_ranking_figures_are_those_of_the_lists_by_hand(tmp_path):
    figures = judge(tmp_path, CLICK).evaluate(Net(), VECTORS, "test")
    # user 0: 3 first of [3, 4]; user 1: 3 first of [3, 1, 4]; user 2: 4 after 2; user 3: popular [0, 1], then 2
    assert set(figures) == {"ranking", "ranking_cold"}
    assert figures["ranking"]["num_users"] == 4
    assert figures["ranking"]["recall@2"] == pytest.approx(3 / 4)
    assert figures["ranking"]["mrr@3"] == pytest.approx((1 + 1 + 1 / 2 + 0) / 4)
    assert figures["ranking_cold"]["num_users"] == 4, "no train event names items 3 and 4"


def test_seen_items_and_the_target_follow_the_config(tmp_path):
    asker = judge(tmp_path, CLICK, CONVERSION, target=Target.CONVERSION, exclude_seen=ExcludeSeen.NONE)
    assert asker.question("test").users_B.tolist() == [1]
    assert asker.question("test").seen.indices.tolist() == []
    assert asker.question("test") is asker.question("test")


def test_labelled_rows_are_judged_by_click_conversion_and_both(tmp_path):
    net = Net({"click": [0.9, 0.8, 0.1], "conversion": [0.7, 0.2, 0.9], "click_and_conversion": [0.63, 0.16, 0.09]})
    figures = judge(tmp_path, CLICK, CONVERSION).evaluate(net, VECTORS, "validation")
    assert set(figures) == {"ranking", "ranking_cold", "click", "conversion", "click_and_conversion"}
    assert (figures["click"]["auc"], figures["click"]["num_rows"]) == (1.0, 3)
    assert (figures["conversion"]["auc"], figures["conversion"]["num_rows"]) == (1.0, 2), "on clicked rows"
    assert figures["click_and_conversion"]["num_rows"] == 3
    assert net.asked.numeric_NF[:, 0].tolist() == [5, 6, 7]
    assert net.asked.item_N.tolist() == [3, 2, 4]


def test_without_impressions_conversion_is_judged_on_clicked_rows_and_click_is_absent(tmp_path):
    net = Net({"conversion": [0.7, 0.2]})
    figures = judge(tmp_path, CLICK, CONVERSION, impressions=False).evaluate(net, VECTORS, "validation")
    assert "click" not in figures
    assert "click_and_conversion" not in figures
    assert figures["conversion"]["num_rows"] == 2


def test_links_are_asked_both_ways_on_the_triples_of_the_part(tmp_path):
    figures = judge(tmp_path, KG).evaluate(Net(), VECTORS, "validation")
    assert set(figures) == {"link"}
    assert figures["link"]["num_triples"] == sum(part == "validation" for *_, part in TRIPLES)
    assert figures["link"]["mrr"] == 1.0
    worse = judge(tmp_path, KG).evaluate(Net(best_tail=0), VECTORS, "validation")
    assert worse["link"]["mrr"] < 1.0


def test_what_the_run_does_not_learn_is_not_judged(tmp_path):
    assert not judge(tmp_path, KG).asks_ranking
    assert set(judge(tmp_path, CLICK, features=False).evaluate(Net(), VECTORS, "test")) == {"ranking", "ranking_cold"}


def test_the_objective_is_validation_ndcg_at_the_first_k_plus_the_mean_area(tmp_path):
    chance = {"click": [0.9, 0.8, 0.1], "conversion": [0.2, 0.7, 0.9], "click_and_conversion": [0.1, 0.2, 0.3]}
    asker = judge(tmp_path, CLICK, CONVERSION)
    found = asker.objective(Net(chance))
    figures = asker.evaluate(Net(chance), VECTORS, "validation")
    areas = [figures[name]["auc"] for name in ("click", "conversion", "click_and_conversion")]
    assert found["ndcg@2"] == figures["ranking"]["ndcg@2"]
    assert "ndcg@3" not in found
    assert found["objective"] == pytest.approx(figures["ranking"]["ndcg@2"] + sum(areas) / 3)
    assert found["conversion_auc"] == 0.0


def test_the_objective_of_a_graph_alone_is_the_validation_mrr(tmp_path):
    found = judge(tmp_path, KG).objective(Net())
    assert found["objective"] == found["link_mrr"] == 1.0
