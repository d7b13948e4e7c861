"""What is learned from the knowledge graph: triples in both directions, against all entities or sampled ones.

Shapes: T triples, B triples of a batch, V distinct queries of a batch, M sampled negatives, E entities, D dimensions,
W dimensions of a relation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from kgrec.errors import InputError, Problem
from kgrec.model.embeddings import NetworkShape
from kgrec.model.kg_scorers import n3_penalty, with_inverses
from kgrec.model.link_losses import (
    link_softmax_loss,
    one_vs_all_loss,
    relation_loss,
    sampled_link_loss,
    self_adversarial_loss,
)
from kgrec.model.network import Encoded, Network
from kgrec.model.precision import takes_bfloat16
from kgrec.model.reasoning import compose_path
from kgrec.model.sampled import Rows

LINK: Final = "link"
_PATHS: Final = 1024  # chains of a step at most


class LinkLoss(StrEnum):
    """How a triple is told from what is no triple."""

    AUTO = "auto"
    ONE_VS_ALL = "one_vs_all"
    SAMPLED = "sampled"
    SELF_ADVERSARIAL = "self_adversarial"


class LinkConfig(BaseModel):
    """How the knowledge loss R(theta, G) is formed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    link_loss: LinkLoss = Field(
        default=LinkLoss.AUTO,
        description='link: "one_vs_all" softmax, softmax over "sampled" entities, "self_adversarial" (RotatE\'s), or '
        '"auto": by full_softmax_entities',
    )
    full_softmax_entities: int = Field(
        default=2_000, ge=0, description="link: up to this many entities a triple is scored against all, beyond sampled"
    )
    sampled_entities: int = Field(default=128, ge=1, description="link: negatives a step where sampled, entities >= 1")
    link_precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="float32",
        description='link: numbers of the one_vs_all products; "auto" = bfloat16 where the CPU has AMX',
    )
    margin: float = Field(default=6.0, ge=0, description="link: margin of self_adversarial, in units of a score, >= 0")
    adversarial_temperature: float = Field(
        default=1.0, ge=0, description="link: how much self_adversarial prefers hard negatives, >= 0; 0 = all alike"
    )
    n3: float = Field(default=0.01, ge=0, description="link: weight of the cubed-magnitude penalty, >= 0")
    smoothness: float = Field(
        default=0.0, ge=0, description="link: weight of the mean squared distance of linked entities (Laplacian), >= 0"
    )
    path_weight: float = Field(
        default=0.0, ge=0, description="link: weight of finding the end of a chain of two relations, >= 0"
    )
    relation_weight: float = Field(
        default=0.0, ge=0, description="link: weight of naming a triple's relation, its head and tail given, >= 0"
    )


class LinkTask:
    """Triples in both directions: the tail (by the inverse relation: the head) against all or sampled entities.

    Against all entities an epoch sees both directions of every triple; batches hold whole queries, so that the many
    answers of one query are scored once. Sampled, an epoch sees every triple once, in a direction drawn anew, so that
    two epochs cost what one of both would.
    """

    name = LINK
    rows_at_once: int | None = None

    def __init__(self, triples_T3: Tensor, shape: NetworkShape, config: LinkConfig) -> None:
        queries_T3 = with_inverses(triples_T3, shape.num_relations)
        self.num_entities, self.num_relations, self.config = shape.num_entities, shape.num_relations, config
        self.loss = config.link_loss
        if self.loss is LinkLoss.AUTO:
            all_fit = shape.num_entities <= config.full_softmax_entities
            self.loss = LinkLoss.ONE_VS_ALL if all_fit else LinkLoss.SAMPLED
        self.bfloat16 = takes_bfloat16(config.link_precision)
        self.rows = len(triples_T3)
        self.starts_V1 = torch.zeros(1, dtype=torch.int64)
        if self.loss is LinkLoss.ONE_VS_ALL:
            key_T = self._key(queries_T3)
            order_T = key_T.argsort(stable=True)
            queries_T3, self.rows = queries_T3[order_T], len(queries_T3)
            _, count_V = torch.unique_consecutive(key_T[order_T], return_counts=True)
            self.starts_V1 = torch.cat([self.starts_V1, count_V.cumsum(0)])
        self.queries_T3 = queries_T3
        self.onward = Onward(queries_T3, shape.num_entities) if config.path_weight else None

    def _key(self, queries_T3: Tensor) -> Tensor:
        return queries_T3[:, 0] * max(2 * self.num_relations, 1) + queries_T3[:, 1]

    def batches(self, generator: torch.Generator, count: int) -> Iterator[Sequence[Tensor]]:
        """Yield (rows of queries, sampled entities or nothing, and with path_weight the rows that go on from tails).

        A row is a place in `queries_T3`; sampled: t or t + T for triple t.
        """
        for row_B, drawn_M in self._cut(generator, count):
            if self.onward is None:
                yield row_B, drawn_M
            else:
                yield row_B, drawn_M, self.onward.draw(self.queries_T3[row_B[:_PATHS], 2], generator)

    def _cut(self, generator: torch.Generator, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        none_M = torch.zeros(0, dtype=torch.int64)
        if self.loss is LinkLoss.ONE_VS_ALL:
            count_V = self.starts_V1.diff()
            for query_B in torch.randperm(len(count_V), generator=generator).tensor_split(count):
                counts_B = count_V[query_B]
                shift_B = self.starts_V1[query_B] - (counts_B.cumsum(0) - counts_B)
                yield torch.repeat_interleave(shift_B, counts_B) + torch.arange(int(counts_B.sum())), none_M
            return
        inverse_T = torch.randint(2, (self.rows,), generator=generator)
        for row_B in torch.randperm(self.rows, generator=generator).tensor_split(count):
            size = (self.config.sampled_entities,)
            drawn_M = torch.randint(max(self.num_entities, 1), size, generator=generator)
            yield row_B + inverse_T[row_B] * self.rows, drawn_M

    def part(self, batch: Sequence[Tensor], rows: slice) -> Sequence[Tensor]:
        """Return some of the triples with all sampled entities; a chain goes with the triple that it starts from."""
        row_B, drawn_M, *onward = batch
        return row_B[rows], drawn_M, *(row_N[rows] for row_N in onward)

    def mass(self, batch: Sequence[Tensor]) -> Mapping[str, float]:
        """Return how many triples there are. Chains, of the first triples alone, weigh a little otherwise in parts."""
        return {LINK: float(len(batch[0]))}

    def reads(self, batch: Sequence[Tensor]) -> Rows:
        """Return heads, tails and sampled entities; all entities where a triple is scored against all."""
        if self.loss is LinkLoss.ONE_VS_ALL:
            return Rows.of(entities=torch.arange(self.num_entities))
        row_B, drawn_M, *onward = batch
        ends = [self.queries_T3[row_N][:, [0, 2]].flatten() for row_N in (row_B, *onward)]
        return Rows.of(entities=torch.cat([*ends, drawn_M]))

    def losses(self, network: Network, encoded: Encoded, batch: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Return {"link": R}, the loss of the triples and each further term times its weight."""
        row_B, drawn_M, *onward = batch
        triples_B3, config = self._placed(row_B, encoded), self.config
        entities_ED = network.tables.entities_ED if encoded.entities_ED is None else encoded.entities_ED
        if self.loss is LinkLoss.ONE_VS_ALL:
            loss, parts, query_B = self._against_all(network, entities_ED, triples_B3)
        else:
            loss, parts = self._against_drawn(network, entities_ED, triples_B3, encoded.at("entities", drawn_M))
            query_B = None
        if config.n3:
            loss = loss + config.n3 * n3_penalty(network.scorer, *parts, query_B)
        if config.relation_weight:
            if network.scorer.relation_query is None:
                what = f"{network.scorer.name.value} cannot score all relations at once"
                raise InputError(Problem("losses.relation_weight", what, "use 0, or model.scorer = 'complex'"))
            head_BD = parts[0] if query_B is None else parts[0].index_select(0, query_B)
            query_BW = network.scorer.relation_query(head_BD, parts[2])
            scores_BR = network.scorer.against(query_BW, network.tables.relations_RW)
            loss = loss + config.relation_weight * relation_loss(scores_BR, triples_B3[:, 1])
        if config.smoothness:
            head_BD = parts[0] if query_B is None else parts[0].index_select(0, query_B)
            loss = loss + config.smoothness * (head_BD - parts[2]).square().sum(1).sum() / max(len(row_B), 1)
        for row_N in onward:
            first_N3, second_N3 = triples_B3[: len(row_N)], self._placed(row_N, encoded)
            loss = loss + config.path_weight * self._paths(network, entities_ED, first_N3, second_N3)
        return {LINK: loss}

    def _placed(self, row_B: Tensor, encoded: Encoded) -> Tensor:
        """Return queries whose heads and tails are places in the encoded entities."""
        triples_B3 = self.queries_T3[row_B]
        if encoded.rows is None:
            return triples_B3
        head_B, relation_B, tail_B = triples_B3.T
        return torch.stack([encoded.at("entities", head_B), relation_B, encoded.at("entities", tail_B)], dim=1)

    def _against_all(
        self, network: Network, entities_ED: Tensor, triples_B3: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
        scorer = network.scorer
        tail_B = triples_B3[:, 2]
        key_V, query_B = torch.unique_consecutive(self._key(triples_B3), return_inverse=True)
        width = max(2 * self.num_relations, 1)
        rows = torch.cat([key_V // width, tail_B])
        head_VD, tail_BD = torch.split(entities_ED.index_select(0, rows), [len(key_V), len(tail_B)])
        relation_VW = network.tables.relations_RW.index_select(0, key_V % width)
        query_VD = network.link_query(head_VD, relation_VW)
        if scorer.distance:
            loss = link_softmax_loss(scorer.against(query_VD, entities_ED), query_B, tail_B)
        else:
            loss = one_vs_all_loss(query_VD, entities_ED, query_B, tail_B, bfloat16=self.bfloat16)
        return loss, (head_VD, relation_VW, tail_BD), query_B

    def _against_drawn(
        self, network: Network, entities_ED: Tensor, triples_B3: Tensor, drawn_M: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        scorer, config = network.scorer, self.config
        head_B, relation_B, tail_B = triples_B3.T
        sizes, rows = [len(head_B), len(tail_B), len(drawn_M)], torch.cat([head_B, tail_B, drawn_M])
        chosen = entities_ED.index_select(0, rows)  # one gather, one scatter
        head_BD, tail_BD, drawn_MD = torch.split(chosen, sizes)
        relation_BW = network.tables.relations_RW.index_select(0, relation_B)
        query_BD = network.link_query(head_BD, relation_BW)
        positive_B, negative_BM = scorer.pairs(query_BD, tail_BD), scorer.against(query_BD, drawn_MD)
        if self.loss is LinkLoss.SELF_ADVERSARIAL:
            heat = config.adversarial_temperature
            loss = self_adversarial_loss(positive_B, negative_BM, tail_B, drawn_M, config.margin, heat)
        else:
            loss = sampled_link_loss(positive_B, negative_BM, tail_B, drawn_M)
        return loss, (head_BD, relation_BW, tail_BD)

    def _paths(self, network: Network, entities_ED: Tensor, first_N3: Tensor, second_N3: Tensor) -> Tensor:
        """Return the loss of (head, first then second relation, end) against the other ends of the batch.

        A chain that comes back to its head says nothing of its relations and is left out.
        """
        onward_N = first_N3[:, 0] != second_N3[:, 2]
        first_N3, second_N3 = first_N3[onward_N], second_N3[onward_N]
        relations_RW = network.tables.relations_RW
        path_N2W = relations_RW[torch.stack([first_N3[:, 1], second_N3[:, 1]], dim=1)]
        end_N = second_N3[:, 2]
        head_ND, end_ND = torch.split(entities_ED.index_select(0, torch.cat([first_N3[:, 0], end_N])), [len(end_N)] * 2)
        query_ND = network.link_query(head_ND, compose_path(network.scorer, path_N2W))
        scores_NN = network.scorer.against(query_ND, end_ND)
        return sampled_link_loss(network.scorer.pairs(query_ND, end_ND), scores_NN, end_N, end_N)


class Onward:
    """Where one can go from an entity: the queries that start there, of which one is drawn."""

    def __init__(self, queries_T3: Tensor, num_entities: int) -> None:
        self.order_T = queries_T3[:, 0].argsort(stable=True)
        self.count_E = torch.bincount(queries_T3[:, 0], minlength=num_entities)
        self.first_E = self.count_E.cumsum(0) - self.count_E

    def draw(self, entity_N: Tensor, generator: torch.Generator) -> Tensor:
        """Return a row of the queries for each entity, uniformly drawn; every entity of a triple has one."""
        share_N = torch.rand(len(entity_N), generator=generator, dtype=torch.float64)
        return self.order_T[self.first_E[entity_N] + (share_N * self.count_E[entity_N]).long()]
