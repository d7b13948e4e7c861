from __future__ import annotations

import pytest
import torch

from kgrec.model.embeddings import NetworkShape
from kgrec.model.growing import grown_network
from kgrec.model.network import Network, NetworkConfig
from kgrec.model.propagation import GraphEdges

LOG = torch.tensor([[0, 0], [0, 1], [1, 1]])
OLD = torch.tensor([[0, 3], [1, 3], [1, 4], [2, 4]])  # items 0-2, entities 3 and 4
NEW = torch.tensor([[0, 4], [1, 4], [1, 5], [2, 5], [3, 5], [3, 6], [2, 6]])  # item 3 came in, and an entity behind


def network(**config):
    shape = NetworkShape(num_users=2, num_items=3, num_entities=5, num_relations=2)
    made = Network(shape, NetworkConfig(dimensions=8, **config), GraphEdges(LOG, OLD), seed=3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


@pytest.mark.parametrize(
    "config", [{}, {"adapter_rank": 2}, {"encoder_hidden": 4}], ids=["plain", "adapter", "encoder"]
)
def test_a_graph_that_did_not_grow_gives_the_same_vectors(config):
    made = network(**config)
    same = grown_network(made, 3, 5, 2, GraphEdges(LOG, OLD))
    for name, one in vars(made.export()).items():
        assert torch.equal(one, getattr(same.export(), name)), name


def test_old_rows_keep_their_tables_and_new_ones_are_placed_by_their_neighbours():
    made = network()
    grown = grown_network(made, 4, 7, 3, GraphEdges(LOG, NEW))
    tables, old = grown.tables, made.tables
    assert torch.equal(tables.entities_ED[[0, 1, 2, 4, 5]], old.entities_ED)
    assert not tables.entities_ED[[3, 6]].any()
    assert torch.equal(tables.relations_RW[[0, 1, 3, 4]], old.relations_RW)
    assert not tables.relations_RW[[2, 5]].any()
    found = grown.export()
    assert torch.allclose(found.item_vectors_ID[3].norm(), torch.tensor(1.0))
    alone = grown_network(made, 4, 7, 3, GraphEdges(LOG, NEW[NEW[:, 0] != 3])).export()
    assert not alone.item_vectors_ID[3].any(), "without an edge nothing places it"
    near = found.item_vectors_ID @ found.item_vectors_ID[3]
    assert near[2] > near[0], "item 2 shares a node with it, item 0 none"


def test_a_graph_does_not_shrink():
    for size in ((2, 4, 2), (3, 4, 2), (3, 5, 1)):
        with pytest.raises(ValueError, match="only grows"):
            grown_network(network(), *size, GraphEdges(LOG, OLD))
