from __future__ import annotations

import pytest
import torch

from kgrec.chain import tensors
from kgrec.chain.tensors import UNKNOWN, exposures, network_shape, training_data
from kgrec.config import TaskName
from kgrec.evaluation.ranking import Target
from kgrec.training.mapped_rows import MappedRows
from kgrec.training.tasks import TaskConfig
from tests.chain.small_parts import parts

CLICK, CONVERSION, KG = TaskName.CLICK, TaskName.CONVERSION, TaskName.KG


def data(folder, *tasks, target=Target.CLICK, off_target_weight=0.2, **options):
    return training_data(*parts(folder, **options), tasks, target, off_target_weight)


def weighted(positives):
    rows = zip(positives.user_P.tolist(), positives.item_P.tolist(), positives.weight_P.tolist(), strict=True)
    return {(user, item): pytest.approx(weight) for user, item, weight in rows}


@pytest.mark.parametrize(
    ("tasks", "target", "off_target_weight", "expected"),
    [
        ((CLICK, CONVERSION), Target.CLICK, 0.2, {(0, 0): 1, (0, 1): 1, (1, 2): 1, (1, 0): 1}),
        ((CLICK, CONVERSION), Target.CONVERSION, 0.2, {(0, 0): 0.2, (0, 1): 1, (1, 2): 0.2, (1, 0): 1}),
        ((CLICK, CONVERSION), Target.CONVERSION, 0.0, {(0, 1): 1, (1, 0): 1}),
        ((CLICK,), Target.CLICK, 0.2, {(0, 0): 1, (0, 1): 1, (1, 2): 1}),
        ((CONVERSION,), Target.CONVERSION, 0.2, {(0, 1): 1, (1, 0): 1}),
    ],
)
def test_positives_are_the_distinct_train_pairs_weighed_by_the_target(
    tmp_path, tasks, target, off_target_weight, expected
):
    found = data(tmp_path, *tasks, target=target, off_target_weight=off_target_weight).positives
    assert weighted(found) == expected
    assert len(found.user_P) == len(expected)


def test_edges_and_triples_are_of_train_alone(tmp_path):
    found = data(tmp_path, CLICK, KG)
    assert set(map(tuple, found.edges.user_item_X2.tolist())) == {(0, 0), (0, 1), (1, 2), (1, 0)}
    assert found.edges.head_tail_X2.tolist() == [[0, 5], [1, 5]]
    assert found.triples_T3.tolist() == [[0, 0, 5], [1, 0, 5]]
    assert found.trainable_I.tolist() == [True, True, True, False, False]


def test_without_the_kg_task_the_graph_is_propagated_but_not_learned(tmp_path):
    found = data(tmp_path, CLICK)
    assert found.triples_T3 is None
    assert found.edges.head_tail_X2.tolist() == [[0, 5], [1, 5]]


def test_the_kg_task_alone_has_no_positives_and_no_labelled_rows(tmp_path):
    found = data(tmp_path, KG)
    assert found.positives is None
    assert found.exposures is None
    assert len(found.triples_T3) == 2


def test_a_graph_without_a_log_has_triples_and_no_users(tmp_path):
    log, _, graph = parts(tmp_path, with_log=False)
    found = training_data(log, None, graph, (KG,), Target.CLICK, 0.2)
    assert found.edges.user_item_X2.shape == (0, 2)
    assert found.triples_T3.tolist() == [[0, 0, 5], [1, 0, 5]]
    shape = network_shape(log, None, graph, found, TaskConfig())
    assert (shape.num_users, shape.num_items, shape.num_entities, shape.num_relations) == (0, 0, 7, 2)


def rows_of(found):
    return list(zip(found.user_N.tolist(), found.item_N.tolist(), strict=True))


def test_labelled_rows_carry_both_labels_and_their_own_features(tmp_path):
    log, features, _ = parts(tmp_path)
    found = exposures(log, features, "train", (CLICK, CONVERSION))
    assert rows_of(found) == [(0, 0), (0, 1), (1, 2), (1, 4), (UNKNOWN, 4)]
    assert found.click_N.tolist() == [1, 1, 1, 0, 0]
    assert found.conversion_N.tolist() == [0, 1, 0, 0, 0]
    assert found.numeric_NF[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert found.categorical_NC[:, 0].tolist() == [100, 101, 102, 103, 104]
    assert found.has_impressions
    later = exposures(log, features, "validation", (CLICK, CONVERSION))
    assert rows_of(later) == [(UNKNOWN, 3), (0, 2), (0, 4)]
    assert later.numeric_NF[:, 0].tolist() == [5, 6, 7]


@pytest.mark.parametrize("chosen", [(CLICK, CONVERSION), (CONVERSION,)])
def test_the_features_of_many_rows_stay_in_their_files_and_read_the_same(tmp_path, monkeypatch, chosen):
    log, features, _ = parts(tmp_path)
    held = exposures(log, features, "train", chosen)
    monkeypatch.setattr(tensors, "MANY_ROWS", 2)
    mapped = exposures(log, features, "train", chosen)
    assert isinstance(mapped.numeric_NF, MappedRows)
    row_B = torch.tensor([2, 0, 1])
    assert torch.equal(mapped.numeric_NF[row_B], held.numeric_NF[row_B])
    assert torch.equal(mapped.categorical_NC[row_B], held.categorical_NC[row_B])
    assert rows_of(mapped) == rows_of(held)
    assert mapped.conversion_N.tolist() == held.conversion_N.tolist()
    assert (mapped.user_N.dtype, mapped.conversion_N.dtype) == (torch.int32, torch.uint8)
    later = exposures(log, features, "validation", chosen)
    assert isinstance(later.numeric_NF, torch.Tensor)


def test_conversion_alone_learns_on_clicked_rows(tmp_path):
    log, features, _ = parts(tmp_path)
    found = exposures(log, features, "train", (CONVERSION,))
    assert rows_of(found) == [(0, 0), (0, 1), (1, 2)]
    assert found.click_N is None
    assert found.conversion_N.tolist() == [0, 1, 0]
    assert found.numeric_NF[:, 0].tolist() == [0, 1, 2]
    assert not found.has_impressions
    assert found.heads == ("conversion",)


def test_click_alone_learns_on_all_exposures(tmp_path):
    log, features, _ = parts(tmp_path)
    found = exposures(log, features, "train", (CLICK, KG))
    assert found.click_N.tolist() == [1, 1, 1, 0, 0]
    assert found.conversion_N is None
    assert found.heads == ("click",)


def test_without_impressions_there_is_nothing_to_tell_a_click_from(tmp_path):
    log, features, _ = parts(tmp_path, impressions=False)
    assert exposures(log, features, "train", (CLICK, KG)) is None
    found = exposures(log, features, "train", (CLICK, CONVERSION))
    assert found.click_N is None
    assert found.conversion_N.tolist() == [0, 1, 0]
    assert found.heads == ("conversion",)


def test_the_shape_counts_the_vocabularies_and_only_the_heads_that_learn(tmp_path):
    log, features, graph = parts(tmp_path, facts={"users": 9, "items": 6})
    both = training_data(log, features, graph, (CLICK, CONVERSION), Target.CLICK, 0.2)
    shape = network_shape(log, features, graph, both, TaskConfig())
    assert (shape.num_users, shape.num_items, shape.num_entities, shape.num_relations) == (9, 6, 7, 2)
    assert (shape.num_numeric, shape.cardinalities, shape.heads) == (1, (200,), ("click", "conversion"))
    without = training_data(log, features, graph, (KG,), Target.CLICK, 0.2)
    shape = network_shape(log, features, graph, without, TaskConfig())
    assert (shape.num_numeric, shape.cardinalities, shape.heads) == (0, (), ())
