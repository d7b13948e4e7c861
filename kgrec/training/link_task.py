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
    has_fast_bfloat16,
    link_softmax_loss,
    one_vs_all_loss,
    relation_loss,
    sampled_link_loss,
    self_adversarial_loss,
)
from kgrec.model.network import Encoded, Network

LINK: Final = "link"


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

    def __init__(self, triples_T3: Tensor, shape: NetworkShape, config: LinkConfig) -> None:
        queries_T3 = with_inverses(triples_T3, shape.num_relations)
        self.num_entities, self.num_relations, self.config = shape.num_entities, shape.num_relations, config
        self.loss = config.link_loss
        if self.loss is LinkLoss.AUTO:
            all_fit = shape.num_entities <= config.full_softmax_entities
            self.loss = LinkLoss.ONE_VS_ALL if all_fit else LinkLoss.SAMPLED
        self.bfloat16 = config.link_precision == "bfloat16" or (config.link_precision == "auto" and has_fast_bfloat16())
        self.rows = len(triples_T3)
        self.starts_V1 = torch.zeros(1, dtype=torch.int64)
        if self.loss is LinkLoss.ONE_VS_ALL:
            key_T = self._key(queries_T3)
            order_T = key_T.argsort(stable=True)
            queries_T3, self.rows = queries_T3[order_T], len(queries_T3)
            _, count_V = torch.unique_consecutive(key_T[order_T], return_counts=True)
            self.starts_V1 = torch.cat([self.starts_V1, count_V.cumsum(0)])
        self.queries_T3 = queries_T3

    def _key(self, queries_T3: Tensor) -> Tensor:
        return queries_T3[:, 0] * max(2 * self.num_relations, 1) + queries_T3[:, 1]

    def batches(self, generator: torch.Generator, count: int) -> Iterator[Sequence[Tensor]]:
        """Yield (rows of queries, sampled entities or nothing).

        A row is a place in `queries_T3`; sampled: t or t + T for triple t.
        """
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

    def losses(self, network: Network, encoded: Encoded, batch: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Return {"link": softmax or self-adversarial loss + n3 * penalty + relation_weight * relation loss}."""
        row_B, drawn_M = batch
        triples_B3, config = self.queries_T3[row_B], self.config
        entities_ED = network.tables.entities_ED if encoded.entities_ED is None else encoded.entities_ED
        if self.loss is LinkLoss.ONE_VS_ALL:
            loss, parts = self._against_all(network, entities_ED, triples_B3)
        else:
            loss, parts = self._against_drawn(network, entities_ED, triples_B3, drawn_M)
        if config.n3:
            loss = loss + config.n3 * n3_penalty(network.scorer, *parts)
        if config.relation_weight:
            if network.scorer.relation_query is None:
                what = f"{network.scorer.name.value} cannot score all relations at once"
                raise InputError(Problem("losses.relation_weight", what, "use 0, or model.scorer = 'complex'"))
            query_BW, relations_RW = network.scorer.relation_query(parts[0], parts[2]), network.tables.relations_RW
            scores_BR = network.scorer.against(query_BW, relations_RW)
            loss = loss + config.relation_weight * relation_loss(scores_BR, triples_B3[:, 1])
        return {LINK: loss}

    def _against_all(
        self, network: Network, entities_ED: Tensor, triples_B3: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        scorer = network.scorer
        tail_B = triples_B3[:, 2]
        key_V, query_B = torch.unique_consecutive(self._key(triples_B3), return_inverse=True)
        width = max(2 * self.num_relations, 1)
        rows = torch.cat([key_V // width, tail_B])
        head_VD, tail_BD = torch.split(entities_ED.index_select(0, rows), [len(key_V), len(tail_B)])
        relation_VW = network.tables.relations_RW.index_select(0, key_V % width)
        query_VD = scorer.tail_query(head_VD, relation_VW)
        if scorer.distance:
            loss = link_softmax_loss(scorer.against(query_VD, entities_ED), query_B, tail_B)
        else:
            loss = one_vs_all_loss(query_VD, entities_ED, query_B, tail_B, bfloat16=self.bfloat16)
        return loss, (head_VD.index_select(0, query_B), relation_VW.index_select(0, query_B), tail_BD)

    def _against_drawn(
        self, network: Network, entities_ED: Tensor, triples_B3: Tensor, drawn_M: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        scorer, config = network.scorer, self.config
        head_B, relation_B, tail_B = triples_B3.T
        sizes, rows = [len(head_B), len(tail_B), len(drawn_M)], torch.cat([head_B, tail_B, drawn_M])
        chosen = entities_ED.index_select(0, rows)  # one gather, one scatter
        head_BD, tail_BD, drawn_MD = torch.split(chosen, sizes)
        relation_BW = network.tables.relations_RW.index_select(0, relation_B)
        query_BD = scorer.tail_query(head_BD, relation_BW)
        positive_B, negative_BM = scorer.pairs(query_BD, tail_BD), scorer.against(query_BD, drawn_MD)
        if self.loss is LinkLoss.SELF_ADVERSARIAL:
            heat = config.adversarial_temperature
            loss = self_adversarial_loss(positive_B, negative_BM, tail_B, drawn_M, config.margin, heat)
        else:
            loss = sampled_link_loss(positive_B, negative_BM, tail_B, drawn_M)
        return loss, (head_BD, relation_BW, tail_BD)
