import pytest
import torch
from pydantic import ValidationError

from kgrec.model.embeddings import NetworkShape, drop_rows
from kgrec.model.kg_scorers import SCORERS
from kgrec.model.network import Encoded, Network, NetworkConfig, fold_in
from kgrec.model.propagation import GraphEdges
from kgrec.model.towers import TowerConfig

U, I, E, R = 6, 5, 9, 2
SHAPE = NetworkShape(
    num_users=U, num_items=I, num_entities=E, num_relations=R, num_numeric=2, cardinalities=(3, 4),
    heads=("click", "conversion"),
)  # fmt: skip
EDGES = GraphEdges(
    torch.tensor([[0, 0], [0, 1], [1, 1], [2, 2], [3, 0], [4, 3], [5, 3]]),
    torch.tensor([[0, 5], [1, 5], [2, 6], [4, 6], [3, 7], [7, 8]]),
)


def network(**changes: object) -> Network:
    return Network(SHAPE, NetworkConfig(dimensions=8, **changes), EDGES, seed=3)


def test_the_served_inner_product_is_the_trained_cosine() -> None:
    model = network().eval()
    encoded, vectors = model.encode(), model.export()
    torch.testing.assert_close(vectors.user_vectors_UD, encoded.users_UD)
    torch.testing.assert_close(vectors.item_vectors_ID, encoded.items_ID)
    torch.testing.assert_close(vectors.user_vectors_UD.norm(dim=1), torch.ones(U))
    torch.testing.assert_close(vectors.entity_vectors_ED[:I], vectors.item_vectors_ID)
    torch.testing.assert_close(vectors.entity_vectors_ED.norm(dim=1), torch.ones(E))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_folding_in_a_known_history_gives_the_vector_of_a_user_with_an_empty_row(layers: int) -> None:
    model = network(layers=layers)
    with torch.no_grad():
        model.tables.users_UD[0] = 0
    vectors = model.export()
    torch.testing.assert_close(fold_in(vectors.item_fold_ID, torch.tensor([1, 0, 1])), vectors.user_vectors_UD[0])
    assert fold_in(vectors.item_fold_ID, torch.tensor([], dtype=torch.int64)).abs().sum() == 0


def test_an_item_without_events_is_placed_by_the_graph_alone() -> None:
    model = network()
    before = model.export().item_vectors_ID[4].clone()
    with torch.no_grad():
        model.tables.entities_ED[4] = 100.0
    torch.testing.assert_close(model.export().item_vectors_ID[4], before)
    with torch.no_grad():
        model.tables.entities_ED[2] *= -1  # the item that shares entity 6 with it
    assert not torch.allclose(model.export().item_vectors_ID[4], before)


def test_blank_rows_come_in_training_only_and_from_the_global_seed() -> None:
    model = network(id_dropout=0.5)
    torch.manual_seed(1)
    first, second = model.train().encode(), model.encode()
    torch.manual_seed(1)
    again = model.encode()
    assert torch.equal(first.users_UD, again.users_UD)
    assert not torch.equal(first.users_UD, second.users_UD)
    assert torch.equal(model.eval().encode().users_UD, model.encode().users_UD)


def test_dropped_rows_are_zero_and_the_others_untouched() -> None:
    torch.manual_seed(0)
    dropped = drop_rows(torch.ones(4000, 2), 0.25)
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert dropped[:, 0].mean().item() == pytest.approx(0.75, abs=0.03)


def test_the_same_seed_gives_the_same_start_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    left, right = network().state_dict(), network().state_dict()
    assert torch.rand(1) == expected
    assert all(torch.equal(left[name], right[name]) for name in left)
    other = Network(SHAPE, NetworkConfig(dimensions=8), EDGES, seed=4).state_dict()
    assert not torch.equal(left["tables.users_UD"], other["tables.users_UD"])


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_link_scores_are_those_of_single_triples(scorer: str) -> None:
    model = network(scorer=scorer)
    entities_ED, relations_RW = model.tables.entities_ED, model.tables.relations_RW
    tails_BE = model.score_tails(torch.tensor([3]), torch.tensor([1]))
    heads_BE = model.score_heads(torch.tensor([1]), torch.tensor([3]))
    for entity in range(E):
        forward = model.scorer.triples(entities_ED[3], relations_RW[1], entities_ED[entity])
        backward = model.scorer.triples(entities_ED[3], relations_RW[1 + R], entities_ED[entity])
        assert tails_BE[0, entity].item() == pytest.approx(forward.item(), abs=1e-6)
        assert heads_BE[0, entity].item() == pytest.approx(backward.item(), abs=1e-6)


def test_predictions_are_probabilities_and_the_product_of_both() -> None:
    model = network().eval()
    rows = torch.tensor([0, 5, -1]), torch.tensor([4, -1, 2])
    features = torch.tensor([[0.1, 2.0], [float("nan"), 1.0], [1e9, -1e9]]), torch.tensor([[0, 3], [-1, 9], [2, 0]])
    got = model.predict(*rows, *features)
    assert set(got) == {"click", "conversion", "click_and_conversion"}
    assert all(bool(((value > 0) & (value < 1)).all()) for value in got.values())
    torch.testing.assert_close(got["click_and_conversion"], got["click"] * got["conversion"])
    vectors = model.export()
    served = model.predict(*rows, *features, encoded=Encoded(vectors.user_vectors_UD, vectors.item_vectors_ID))
    torch.testing.assert_close(served, got)


def test_unknown_categories_add_nothing() -> None:
    model = network().eval()
    assert model.towers is not None
    with torch.no_grad():
        model.towers.wide_categories.weight.fill_(7.0)
        model.towers.categories.weight.zero_()
    one = torch.tensor([0])
    numeric = torch.zeros(1, 2)
    unknown = model.predict(one, one, numeric, torch.tensor([[-1, 4]]))["click"]
    with torch.no_grad():
        model.towers.wide_categories.weight.zero_()
    torch.testing.assert_close(model.predict(one, one, numeric, torch.tensor([[0, 0]]))["click"], unknown)


def test_a_share_of_zero_keeps_the_towers_gradient_from_the_shared_vectors() -> None:
    for share, reached in ((0.0, False), (0.5, True)):
        model = network(towers=TowerConfig(shared_gradient=share)).eval()
        one = torch.tensor([0])
        model.predict(one, one, torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.int64))["click"].sum().backward()
        gradient = model.tables.users_UD.grad
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) is reached


def test_a_graph_alone_needs_neither_users_nor_items() -> None:
    shape = NetworkShape(num_users=0, num_items=0, num_entities=4, num_relations=1)
    edges = GraphEdges(GraphEdges.empty().user_item_X2, torch.tensor([[0, 1], [1, 2]]))
    model = Network(shape, NetworkConfig(dimensions=4), edges, seed=1)
    assert model.score_tails(torch.tensor([0]), torch.tensor([0])).shape == (1, 4)
    assert model.encode().users_UD.shape == (0, 4)
    assert model.export().entity_vectors_ED.shape == (4, 4)
    assert model.predict(*(torch.tensor([0]),) * 2, torch.zeros(1, 0), torch.zeros(1, 0, dtype=torch.int64)) == {}


def test_contradicting_counts_are_refused() -> None:
    with pytest.raises(ValidationError, match="every item is an entity"):
        NetworkShape(num_users=1, num_items=3, num_entities=2)
    with pytest.raises(ValidationError, match="cardinalities"):
        NetworkShape(num_users=1, num_items=1, num_entities=2, cardinalities=(0,))
    with pytest.raises(ValidationError):
        NetworkConfig(dimension=8)  # type: ignore[call-arg]
