"""A trained network on a graph that has grown: what is new stands at zero, and its neighbours alone place it.

Shapes: I items, E entities (the items first), R relations, U users, D dimensions, W dimensions of a relation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import Network
from kgrec.model.propagation import GraphEdges


def grown_network(
    network: Network, num_items: int, num_entities: int, num_relations: int, edges: GraphEdges
) -> Network:
    """Return the network with room for more items, entities and relations, over other edges; without towers.

    Old rows keep their vectors: item i stays row i, entity e behind the items moves from row I + e to row I' + e, and
    the inverse of relation r from R + r to R' + r. New rows are zeros, so that propagation places them by their
    neighbours. ValueError where something would shrink.
    """
    old, tables = network.shape, network.tables
    others = num_entities - num_items
    if num_items < old.num_items or others < old.num_entities - old.num_items or num_relations < old.num_relations:
        raise ValueError(f"a graph only grows: from {old} to {num_items} items, {num_entities} entities")
    shape = NetworkShape(num_users=old.num_users, num_items=num_items, num_entities=num_entities,
                         num_relations=num_relations)  # fmt: skip
    grown = Network(shape, network.config.model_copy(update={"adapter_rank": 0}), edges, seed=0)
    entities_ED, relations_RW = tables.entities_ED.detach(), tables.relations_RW.detach()
    with torch.no_grad():
        grown.tables.users_UD.copy_(tables.users_UD)
        grown.tables.entities_ED.copy_(_spread(entities_ED, old.num_items, num_items, num_entities))
        grown.tables.relations_RW.copy_(_spread(relations_RW, old.num_relations, num_relations, 2 * num_relations))
    if network.shared_encoder is not None and grown.shared_encoder is not None:
        grown.shared_encoder.load_state_dict(network.shared_encoder.state_dict())
    return grown.eval()


def _spread(table_ND: Tensor, old_first: int, new_first: int, rows: int) -> Tensor:
    """Return the table with zeros behind its first block and at its end."""
    spread_ND = torch.zeros(rows, table_ND.shape[1], dtype=table_ND.dtype)
    spread_ND[:old_first] = table_ND[:old_first]
    rest_ND = table_ND[old_first:]
    spread_ND[new_first : new_first + len(rest_ND)] = rest_ND
    return spread_ND
