from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.errors import InputError
from kgrec.model import precision as precision_module
from kgrec.model.embeddings import NetworkShape
from kgrec.model.losses import click_loss, entire_space_loss, full_softmax_loss
from kgrec.model.propagation import GraphEdges
from kgrec.training.exposures import TowerTask
from kgrec.training.tasks import (
    LinkTask,
    Positives,
    RetrievalTask,
    TaskConfig,
    TrainingData,
    make_network,
    make_tasks,
)
from tests.training.worlds_of_tensors import SMALL, exposures, relatives, tastes


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(0, 99))
def test_batches_hold_every_row_once(count: int, seed: int) -> None:
    shape, data, _ = tastes()
    assert data.positives is not None
    assert data.triples_T3 is not None
    table, *_ = exposures(70, impressions=True)
    for task in (
        RetrievalTask(data.positives, shape.num_items, None, TaskConfig()),
        LinkTask(data.triples_T3, shape, TaskConfig()),
        TowerTask(table, TaskConfig()),
    ):
        batches = [batch[0] for batch in task.batches(torch.Generator().manual_seed(seed), count)]
        assert len(batches) == count
        assert sorted((torch.cat(batches) % task.rows).tolist()) == list(range(task.rows))
        if task.name != "link":  # its batches hold whole queries, of any number of answers
            assert max(map(len, batches)) - min(map(len, batches)) <= 1


def test_tasks_are_what_the_data_allows_the_main_one_first() -> None:
    shape, data, _ = tastes()
    table, *_ = exposures(50, impressions=True)
    headed = shape.model_copy(update={"heads": table.heads, "num_numeric": 2, "cardinalities": (3,)})
    everything = replace(data, exposures=table)
    assert [task.name for task in make_tasks(headed, everything, TaskConfig())] == ["retrieval", "towers", "link"]
    assert [task.name for task in make_tasks(shape, replace(data, positives=None), TaskConfig())] == ["link"]
    with pytest.raises(InputError, match="nothing to learn"):
        make_tasks(shape, TrainingData(GraphEdges.empty()), TaskConfig())


def test_items_without_events_are_left_out_of_the_denominator() -> None:
    shape, data, _ = tastes()
    assert data.positives is not None
    network = make_network(shape, SMALL, data, 1).eval()
    task = RetrievalTask(data.positives, shape.num_items, None, TaskConfig(softmax_precision="float32"))
    rows = torch.arange(task.rows)
    encoded = network.encode()
    got = task.losses(network, encoded, (rows, rows[:0]))["retrieval"]
    seen = torch.arange(shape.num_items) < shape.num_items - 4
    user_P, item_P, weight_P = data.positives.user_P, data.positives.item_P, data.positives.weight_P
    expected = full_softmax_loss(encoded.users_UD, encoded.items_ID, user_P, item_P, weight_P, 0.2, seen)
    torch.testing.assert_close(got, expected)
    assert got < full_softmax_loss(encoded.users_UD, encoded.items_ID, user_P, item_P, weight_P, 0.2)


def test_large_catalogues_are_multiplied_in_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = torch.zeros(1, dtype=torch.int64)

    def taken(num_items: int, precision: str) -> bool:
        config = TaskConfig(softmax_precision=precision)
        return RetrievalTask(Positives(one, one, torch.ones(1)), num_items, None, config).bfloat16

    for fast in (True, False):
        monkeypatch.setattr(precision_module, "has_fast_bfloat16", lambda fast=fast: fast)
        assert [taken(9_999, "auto"), taken(10_000, "auto")] == [False, fast]
        assert [taken(2, "bfloat16"), taken(10_000, "float32")] == [True, False]


def test_the_sampled_loss_is_near_the_full_one_and_draws_candidates_only() -> None:
    shape, data, _ = tastes()
    assert data.positives is not None
    network = make_network(shape, SMALL, data, 1).eval()
    full = RetrievalTask(data.positives, shape.num_items, None, TaskConfig())
    config = TaskConfig(full_softmax_items=0, sampled_items=20_000)
    sampled = RetrievalTask(data.positives, shape.num_items, None, config)
    losses = []
    for task in (full, sampled):
        (batch,) = task.batches(torch.Generator().manual_seed(1), 1)
        losses.append(task.losses(network, network.encode(), batch)["retrieval"].item())
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert batch[1].max() < shape.num_items - 4
    assert len(batch[1]) == 20_000


@pytest.mark.parametrize("impressions", [True, False])
def test_tower_losses_are_those_of_the_labels(impressions: bool) -> None:
    table, *_ = exposures(200, impressions=impressions)
    heads = table.heads
    assert heads == (("click", "conversion") if impressions else ("conversion",))
    shape = NetworkShape(num_users=20, num_items=20, num_entities=20, num_numeric=2, cardinalities=(3,), heads=heads)
    network = make_network(shape, SMALL, TrainingData(GraphEdges.empty(), exposures=table), 1).eval()
    encoded, rows = network.encode(), torch.arange(len(table.user_N))
    losses = TowerTask(table, TaskConfig()).losses(network, encoded, (rows,))
    assert network.towers is not None
    assert table.conversion_N is not None
    vectors = encoded.users_UD[table.user_N], encoded.items_ID[table.item_N]
    logits = network.towers(*vectors, table.numeric_NF, table.categorical_NC).logits
    if table.click_N is not None:
        torch.testing.assert_close(losses["click"], click_loss(logits["click"], table.click_N))
        both = entire_space_loss(logits["click"], logits["conversion"], table.conversion_N)
        torch.testing.assert_close(losses["conversion"], both)
    else:
        torch.testing.assert_close(losses["conversion"], click_loss(logits["conversion"], table.conversion_N))


def test_towers_start_at_the_base_rates() -> None:
    table, *_ = exposures(4000, impressions=True)
    shape = NetworkShape(
        num_users=20, num_items=20, num_entities=20, num_numeric=2, cardinalities=(3,), heads=("click", "conversion")
    )
    network = make_network(shape, SMALL, TrainingData(GraphEdges.empty(), exposures=table), 1).eval()
    assert table.click_N is not None
    got = network.predict(table.user_N, table.item_N, table.numeric_NF, table.categorical_NC)
    assert got["click"].mean().item() == pytest.approx(table.click_N.mean().item(), abs=0.08)


def test_link_loss_full_and_sampled_and_its_penalty() -> None:
    shape, triples_T3, _ = relatives()
    data = TrainingData(GraphEdges.empty(), triples_T3=triples_T3)
    network = make_network(shape, SMALL, data, 1)
    rows = torch.arange(2 * len(triples_T3))
    everyone = torch.arange(shape.num_entities)
    losses = {}
    for name, config, drawn in (
        ("full", TaskConfig(n3=0), everyone[:0]),
        ("sampled", TaskConfig(n3=0, full_softmax_entities=0), everyone),
        ("penalty", TaskConfig(n3=0.5), everyone[:0]),
    ):
        losses[name] = (
            LinkTask(triples_T3, shape, config).losses(network, network.encode(), (rows, drawn))["link"].item()
        )
    head, relation, tail = triples_T3.T
    oracle = 0.0
    for a, r, b in [*zip(head, relation, tail, strict=True), *zip(tail, relation + 2, head, strict=True)]:
        scores = network.score_tails(a[None], r[None])[0].detach()
        oracle += float(scores.logsumexp(0) - scores[b]) / len(rows)
    assert losses["full"] == pytest.approx(oracle, rel=1e-5)
    assert losses["sampled"] == pytest.approx(oracle, rel=1e-5)
    assert losses["penalty"] > losses["full"]
