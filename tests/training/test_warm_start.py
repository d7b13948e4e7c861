"""What an earlier training hands over: every row that stood, newcomers by their neighbours, the rest fresh."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import Network, NetworkConfig
from kgrec.model.propagation import GraphEdges
from kgrec.model.towers import TowerConfig
from kgrec.training.warm_start import Earlier, carry_over

THEN = NetworkShape(num_users=3, num_items=4, num_entities=6, num_relations=2)
NOW = NetworkShape(num_users=5, num_items=6, num_entities=9, num_relations=3)
NO_EDGES = torch.zeros(0, 2, dtype=torch.int64)


def network(shape: NetworkShape, edges: GraphEdges | None = None, seed: int = 1, **config: object) -> Network:
    return Network(shape, NetworkConfig(dimensions=4, **config), edges or GraphEdges.empty(), seed)


def earlier(shape: NetworkShape = THEN, **config: object) -> Earlier:
    state = {name: tensor.clone() for name, tensor in network(shape, seed=2, **config).state_dict().items()}
    users, entities = torch.ones(shape.num_users).bool(), torch.ones(shape.num_entities).bool()
    return Earlier(state, shape, users, entities)


@pytest.mark.parametrize("rank", [0, 2])
def test_every_row_that_stood_is_carried_to_where_it_is_now(rank):
    before, after = earlier(adapter_rank=rank), network(NOW, adapter_rank=rank)
    assert carry_over(after, before, GraphEdges.empty()) == []
    now, then = after.state_dict(), before.state
    assert torch.equal(now["tables.users_UD"][:3], then["tables.users_UD"])
    for name in [name for name in then if "entities_ED" in name and len(then[name]) == 6]:
        assert torch.equal(now[name][:4], then[name][:4]), "items stay"
        assert torch.equal(now[name][6:8], then[name][4:]), "the other entities move behind the new items"
    assert torch.equal(now["tables.relations_RW"][:2], then["tables.relations_RW"][:2])
    assert torch.equal(now["tables.relations_RW"][3:5], then["tables.relations_RW"][2:]), "inverses move as well"


def test_a_newcomer_starts_as_the_mean_of_its_known_neighbours():
    users_X2 = torch.tensor([[0, 0], [1, 0], [3, 0], [3, 1], [0, 4], [4, 4], [3, 4]])
    triples_X2 = torch.tensor(
        [[5, 6], [7, 5], [0, 8]]
    )  # item 5 joins the old entities 6 and 7, entity 8 the old item 0
    edges = GraphEdges(users_X2, triples_X2)
    after, before = network(NOW, edges), earlier()
    carry_over(after, before, edges)
    users_UD, entities_ED = (after.get_parameter(f"tables.{name}").detach() for name in ("users_UD", "entities_ED"))
    old_UD, old_ED = before.state["tables.users_UD"], before.state["tables.entities_ED"]
    close = torch.testing.assert_close
    close(entities_ED[4], old_UD[0])
    close(entities_ED[5], (old_ED[4] + old_ED[5]) / 2)
    close(entities_ED[8], old_ED[0])
    close(users_UD[3], (old_ED[0] + old_ED[1] + old_UD[0]) / 3)
    close(users_UD[4], old_UD[0], msg="its only item is new itself, and was placed before")


def test_who_has_no_known_neighbour_keeps_a_fresh_start():
    after, fresh = network(NOW), network(NOW)
    carry_over(after, earlier(), GraphEdges.empty())
    assert torch.equal(after.get_parameter("tables.users_UD")[3:], fresh.get_parameter("tables.users_UD")[3:])


def test_a_row_that_never_learned_is_a_newcomer():
    edges = GraphEdges(torch.tensor([[2, 1]]), NO_EDGES)
    before = earlier()
    before.learned_U[2] = False
    after = network(NOW, edges)
    carry_over(after, before, edges)
    torch.testing.assert_close(after.get_parameter("tables.users_UD")[2], before.state["tables.entities_ED"][1])


def test_categories_follow_their_values_and_the_rest_of_the_towers_is_kept():
    heads = {"heads": ("click",), "num_numeric": 2}
    towers = {"towers": TowerConfig(hidden=(3,))}
    then, now = (THEN.model_copy(update={**heads, "cardinalities": sizes}) for sizes in ((3, 4), (4, 4)))
    state = {name: tensor.clone() for name, tensor in network(then, seed=2, **towers).state_dict().items()}
    old = Earlier(
        state, then, torch.ones(3).bool(), torch.ones(6).bool(), [("colour", ["red", "blue"]), ("size", ["s"])]
    )
    after = network(now, **towers)
    fresh = after.towers.categories.weight.detach().clone()
    assert carry_over(after, old, GraphEdges.empty(), [("colour", ["blue", "green", "red"]), ("size", ["s"])]) == []
    table, before = after.towers.categories.weight.detach(), state["towers.categories.weight"]
    assert torch.equal(table[[0, 3, 1]], before[[0, 1, 2]]), "unknown, red, blue"
    assert torch.equal(table[2], fresh[2]), "green is new"
    assert torch.equal(table[[4, 5, 6, 7]], before[[3, 4, 5, 6]]), "the second column: unknown, s and its two buckets"
    assert torch.equal(after.towers.deep.weight, state["towers.deep.weight"])


def test_other_columns_or_shapes_start_anew_and_say_so():
    shape = THEN.model_copy(update={"heads": ("click",), "num_numeric": 2, "cardinalities": (3,)})
    towers = {"towers": TowerConfig(hidden=(3,))}
    state = {name: tensor.clone() for name, tensor in network(shape, seed=2, **towers).state_dict().items()}
    old = Earlier(state, shape, torch.ones(3).bool(), torch.ones(6).bool(), [("colour", ["red", "blue"])])
    wider = shape.model_copy(update={"num_numeric": 3})
    fresh = carry_over(network(wider, **towers), old, GraphEdges.empty(), [("shape", ["round", "flat"])])
    assert {"towers.categories.weight", "towers.wide_categories.weight", "towers.wide.weight"} <= set(fresh)
    assert "towers.deep.weight" not in fresh
    assert "tables.users_UD" not in fresh


def test_a_vocabulary_that_shrank_is_refused():
    with pytest.raises(ValueError, match="num_items fell from 6 to 4"):
        carry_over(network(THEN.model_copy(update={"num_users": 5})), earlier(NOW), GraphEdges.empty())


def test_categories_without_towers_that_read_them_are_no_matter() -> None:
    """A log of clicks alone has columns of categories and no heads, so neither shape knows their sizes."""
    categories = [("colour", ["red", "blue"])]
    before = replace(earlier(), categories=categories)
    assert carry_over(network(NOW), before, GraphEdges.empty(), [("colour", ["blue", "green", "red"])]) == []
