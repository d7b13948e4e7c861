"""The network: shared tables, propagation, towers and the link scorer, behind one face.

Shapes: U users, I items, E entities, K nodes of the graph, D dimensions, B rows, F and C features, R relations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from kgrec.model.adapters import SharedEncoder, adapt_entities
from kgrec.model.embeddings import NetworkShape, SharedTables, drop_rows
from kgrec.model.kg_scorers import SCORERS, KgScorer, ScorerName
from kgrec.model.propagation import GraphEdges, build_adjacency, fold_vectors, propagate
from kgrec.model.reasoning import compose_path, path_consistency
from kgrec.model.sampled import Rows, distinct, draw_layers, hashed, places, propagate_drawn
from kgrec.model.towers import TowerConfig, TowerOutput, Towers, probabilities
from kgrec.seeds import derive_seed


class NetworkConfig(BaseModel):
    """What the network is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimensions: int = Field(
        default=64, ge=2, multiple_of=2, description="dimensions of every shared vector, even, >= 2"
    )
    layers: int = Field(default=2, ge=0, le=3, description="propagation layers over the graph, 0 to 3")
    propagation: Literal["exact", "sampled"] = Field(
        default="exact",
        description='how a training step propagates: over the "exact" graph, or over "sampled" neighbours of its rows, '
        "for a graph that does not fit a step; what is judged and served is exact",
    )
    fanout: int = Field(
        default=16, ge=1, description="sampled propagation: neighbours that a node asks in a layer at most, >= 1"
    )
    graph_weight: float = Field(
        default=0.5, ge=0, description="weight of a knowledge-graph edge beside an interaction's 1, >= 0; 0 = graph off"
    )
    id_dropout: float = Field(
        default=0.1, ge=0, lt=1, description="share of user and item rows blanked in a training step, [0, 1)"
    )
    spread: float = Field(default=0.1, gt=0, description="standard deviation of the tables' first values, > 0")
    scorer: ScorerName = Field(default=ScorerName.COMPLEX, description="how a triple is scored")
    adapter_rank: int = Field(
        default=0, ge=0, description="rank of the adapter beside the entity table, >= 0; 0 = none"
    )
    encoder_hidden: int = Field(
        default=0,
        ge=0,
        description="hidden units of an encoder of (entity, relation) that all tasks share, >= 0; 0 = no encoder",
    )
    towers: TowerConfig = Field(default=TowerConfig(), description="the click and conversion towers")


@dataclass(frozen=True)
class Encoded:
    """What the tasks read once a step. Users and items: vectors of length 1, or 0 where nothing is known.

    entities_ED: the entities' rows as the links read them; None where neither links nor `cross_compress` are asked.
    rows: what the tables are of, where they are not of all.
    """

    users_UD: Tensor
    items_ID: Tensor
    entities_ED: Tensor | None = None
    rows: Rows | None = None

    def at(self, kind: Literal["users", "items", "entities"], row_B: Tensor) -> Tensor:
        """Return where rows stand in the table of this kind; -1 stays."""
        return row_B if self.rows is None else places(getattr(self.rows, kind), row_B)


@dataclass(frozen=True)
class ExportedVectors:
    """All vectors that serving needs; the inner product of a user and an item is the trained cosine.

    user_vectors_UD and item_vectors_ID have length 1. item_fold_ID makes vectors of newcomers (`fold_in`),
    and with user_own_UD, each user's own part, those of users whose history has grown (`placed_users`); None where
    nothing is propagated, since a history moves nobody then.
    entity_vectors_ED, length 1: the encoded rows, items first; an entity that hangs on a single neighbour (left out of
    propagation) and an entity without edges has its own table row.
    """

    user_vectors_UD: Tensor
    user_own_UD: Tensor | None
    item_vectors_ID: Tensor
    item_fold_ID: Tensor
    entity_vectors_ED: Tensor


class Network(nn.Module):
    """Every task's model. Parameters start from `seed` alone; `edges` are those of the train part, never of test.

    An item without any interaction has no trained row of its own: its row is blank in propagation, in training and
    in serving alike, so that the graph alone places it.
    """

    def __init__(
        self, shape: NetworkShape, config: NetworkConfig, edges: GraphEdges, seed: int,
        make_tables: Callable[..., Any] = SharedTables,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape, self.config = shape, config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "network"))
            generator = torch.Generator().manual_seed(derive_seed(seed, "tables"))
            width = self.scorer.width(config.dimensions)
            self.tables: SharedTables = make_tables(shape, config.dimensions, width, config.spread, generator)
            self.towers = Towers(shape, config.dimensions, config.towers) if shape.heads else None
            self.shared_encoder = (
                SharedEncoder(config.dimensions, width, config.encoder_hidden) if config.encoder_hidden else None
            )
        if config.adapter_rank:
            own = torch.Generator().manual_seed(derive_seed(seed, "adapter"))
            adapt_entities(self.tables, config.adapter_rank, own)
        sizes = (shape.num_users, shape.num_items, shape.num_entities)
        self.adjacency = build_adjacency(
            edges, *sizes, config.graph_weight if config.layers and shape.num_items else 0.0
        )
        seen_I1 = torch.zeros(shape.num_items, 1)
        seen_I1[edges.user_item_X2[:, 1]] = 1.0
        self.register_buffer("seen_I1", seen_I1, persistent=False)

    @property
    def scorer(self) -> KgScorer:
        """The functions that score a triple."""
        return SCORERS[self.config.scorer]

    def _nodes(self) -> Tensor:
        """Return the rows that enter propagation, (K, D); in training some user and item rows are blank."""
        share = self.config.id_dropout if self.training else 0.0
        items, kept_P = self.shape.num_items, self.adjacency.kept_P
        row_J = torch.cat([torch.arange(items), kept_P])  # one gather, one gradient: two would each fill a table with 0
        items_ID, kept_PD = torch.split_with_sizes(self.tables.entities_ED.index_select(0, row_J), [items, len(kept_P)])
        if self.shared_encoder is not None:
            items_ID = self.shared_encoder.items(items_ID)
        items_ID = items_ID * self.get_buffer("seen_I1")
        return torch.cat([drop_rows(self.tables.users_UD, share), drop_rows(items_ID, share), kept_PD])

    def _propagated(self) -> Tensor:
        return propagate(self._nodes(), self.adjacency.matrix_KK, self.config.layers)

    def encode(self, reads: Rows | None = None, *, aligned: bool = False) -> Encoded:
        """Return all vectors that tasks read; the users' and items' by one propagation over the whole graph.

        With `propagation = "sampled"` and `reads`, only the vectors of those rows, by propagation over drawn edges.
        aligned: items among the rows are among its entities, too, and the other way round.
        """
        if reads is not None and self.config.propagation == "sampled":
            return self._encode_rows(reads.aligned(self.shape.num_items) if aligned else reads)
        sizes = [self.shape.num_users, self.shape.num_items, len(self.adjacency.kept_P)]
        users_UD, items_ID, _ = torch.split_with_sizes(self._propagated(), sizes)
        users_UD, items_ID = functional.normalize(users_UD, dim=1), functional.normalize(items_ID, dim=1)
        return Encoded(users_UD, items_ID, self.tables.entities_ED)

    def _encode_rows(self, reads: Rows) -> Encoded:
        """Return the vectors of distinct ascending rows. One number is drawn, so that all processes draw alike."""
        key = int(torch.randint(1 << 62, ())) if self.training else 0
        users, items = self.shape.num_users, self.shape.num_items
        matrix_KK, config = self.adjacency.matrix_KK, self.config
        layers = draw_layers(
            matrix_KK, torch.cat([reads.users, reads.items + users]), config.layers, config.fanout, key
        )
        reached_M = layers[-1].reached_M if layers else torch.cat([reads.users, reads.items + users])
        user_V, rest = reached_M[reached_M < users], reached_M[reached_M >= users] - users
        item_J, kept = rest[rest < items], self.adjacency.kept_P[rest[rest >= items] - items]
        compressed = [reads.items] if self.item_rows_read else []
        entity_F = distinct(torch.cat([reads.entities, *compressed]))
        table_G = distinct(torch.cat([item_J, kept, entity_F]))
        users_VD, table_GD = self.tables.rows(user_V, table_G)
        items_JD, kept_PD, entities_FD = (
            table_GD.index_select(0, torch.searchsorted(table_G, part)) for part in (item_J, kept, entity_F)
        )
        if self.shared_encoder is not None:
            items_JD = self.shared_encoder.items(items_JD)
        own_MD = torch.cat([users_VD, items_JD * self.get_buffer("seen_I1")[item_J]])
        if self.training and config.id_dropout > 0:
            own_MD = own_MD * (hashed(~key, reached_M[: len(own_MD)]) >= config.id_dropout).unsqueeze(1)
        final_ND = functional.normalize(propagate_drawn(torch.cat([own_MD, kept_PD]), layers), dim=1)
        first = len(reads.users)
        return Encoded(final_ND[:first], final_ND[first:], entities_FD, Rows(reads.users, reads.items, entity_F))

    @property
    def item_rows_read(self) -> bool:
        """Say whether the towers read the items' own rows beside the propagated ones."""
        return self.towers is not None and self.towers.compress is not None

    def item_rows(self) -> Tensor | None:
        """Return the items' own rows, (I, D), where the towers read them beside the propagated ones; else None."""
        return self.tables.entities_ED[: self.shape.num_items] if self.item_rows_read else None

    def predict(
        self, user_B: Tensor, item_B: Tensor, numeric_BF: Tensor, categorical_BC: Tensor, encoded: Encoded | None = None
    ) -> dict[str, Tensor]:
        """Return probabilities (B,): click, conversion (given a click) and click_and_conversion, where trained.

        Hand in `encoded` (from `encode`, or the exported vectors) when calling often. A row of -1 is unknown.
        """
        if self.towers is None:
            return {}
        vectors = encoded or self.encode()
        output = run_towers(self.towers, vectors, user_B, item_B, numeric_BF, categorical_BC)
        return probabilities(self.towers.calibrated(output.logits))

    def link_query(self, head_BD: Tensor, relation_BW: Tensor) -> Tensor:
        """Return what is compared with tails, (B, D): of the head, or of the encoded (head, relation)."""
        if self.shared_encoder is not None:
            head_BD = self.shared_encoder(head_BD, relation_BW)
        return self.scorer.tail_query(head_BD, relation_BW)

    def score_tails(self, head_B: Tensor, relation_B: Tensor) -> Tensor:
        """Return scores_BE of every entity as the tail of (head, relation, ?)."""
        entities_ED = self.tables.entities_ED
        relation_BW = self.tables.relations_RW.index_select(0, relation_B)
        query_BD = self.link_query(entities_ED.index_select(0, head_B), relation_BW)
        return self.scorer.against(query_BD, entities_ED)

    def score_heads(self, relation_B: Tensor, tail_B: Tensor) -> Tensor:
        """Return scores_BE of every entity as the head of (?, relation, tail), by the inverse relation as trained."""
        return self.score_tails(tail_B, relation_B + self.shape.num_relations)

    def score_path(self, head_B: Tensor, path_BL: Tensor) -> Tensor:
        """Return scores_BE of every entity as the end of a chain of L relations (r + R: r backwards) from each head."""
        entities_ED, path_BLW = self.tables.entities_ED, self.tables.relations_RW[path_BL]
        query_BD = self.link_query(entities_ED.index_select(0, head_B), compose_path(self.scorer, path_BLW))
        return self.scorer.against(query_BD, entities_ED)

    def path_consistency(self, head_B: Tensor, relation_B: Tensor, path_BL: Tensor) -> Tensor:
        """Return how much each chain leads where the relation leads, from this head, (B,) in [-1, 1]."""
        relations_RW, head_BD = self.tables.relations_RW, self.tables.entities_ED.index_select(0, head_B)
        return path_consistency(self.scorer, head_BD, relations_RW[relation_B], relations_RW[path_BL])

    @torch.no_grad()
    def export(self) -> ExportedVectors:
        """Return the vectors that serving needs, as of now and without dropout."""
        training = self.training
        self.eval()
        nodes_KD, final_KD = self._nodes(), functional.normalize(self._propagated(), dim=1)
        self.train(training)
        first, last = self.shape.num_users, self.shape.num_users + self.shape.num_items
        entities_ED = functional.normalize(self.tables.entities_ED, dim=1).clone()
        entities_ED[: self.shape.num_items] = final_KD[first:last]
        entities_ED[self.adjacency.kept_P] = final_KD[last:]
        fold_ID = fold_vectors(nodes_KD, self.adjacency, self.config.layers)
        spread = self.config.layers > 0 and self.adjacency.matrix_KK is not None
        own_UD = nodes_KD[:first] / (self.config.layers + 1) if spread else None
        return ExportedVectors(
            final_KD[:first].clone(), own_UD, final_KD[first:last].clone(), fold_ID.clone(), entities_ED
        )


def run_towers(
    towers: Towers, vectors: Encoded, user_B: Tensor, item_B: Tensor, numeric_BF: Tensor, categorical_BC: Tensor
) -> TowerOutput:
    """Return what the towers say of (user, item) rows, of which -1 is unknown, with these features."""
    user_BD = rows_or_zero(vectors.users_UD, vectors.at("users", user_B))
    item_BD = rows_or_zero(vectors.items_ID, vectors.at("items", item_B))
    rows_ED = vectors.entities_ED if towers.compress is not None else None
    entity_BD = rows_or_zero(rows_ED, vectors.at("entities", item_B)) if rows_ED is not None else None
    output: TowerOutput = towers(user_BD, item_BD, numeric_BF, categorical_BC, entity_BD)
    return output


def rows_or_zero(table_ND: Tensor, row_B: Tensor) -> Tensor:
    """Return the rows, (B, D); a row of -1 gives zeros.

    >>> rows_or_zero(torch.eye(2), torch.tensor([1, -1])).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    if len(table_ND) == 0:
        return torch.zeros(len(row_B), table_ND.shape[1], dtype=table_ND.dtype, device=table_ND.device)
    return table_ND.index_select(0, row_B.clamp(min=0)) * (row_B >= 0).unsqueeze(1)


def placed_users(own_BD: Tensor, fold_sum_BD: Tensor, items_B: Tensor) -> Tensor:
    """Return users' vectors of length 1, (B, D), from their own parts and the sums of fold_i over their items_B items.

    With the histories of train these are the encoder's vectors; a longer history moves them as one more edge of
    propagation would, the items' vectors standing still. Zeros where nothing is known.
    """
    return functional.normalize(own_BD + fold_sum_BD / items_B.clamp(min=1).to(own_BD.dtype).sqrt()[:, None], dim=1)


def fold_in(item_fold_ID: Tensor, item_H: Tensor) -> Tensor:
    """Return a newcomer's vector, (D,), of length 1, from the item rows of its history; zeros for an empty one.

    The length of the sum over H of fold_i / sqrt(|H|) does not matter to a cosine, so it is set to 1.
    """
    return functional.normalize(item_fold_ID.index_select(0, torch.unique(item_H)).sum(0), dim=0)
