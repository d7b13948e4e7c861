"""What is learned: each task cuts its rows into batches and gives the losses of one.

Shapes: P positives, N exposures, T triples, I items, B rows of a batch, V distinct users of a batch, M negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from kgrec.errors import InputError, Problem
from kgrec.model.conversion import TowerLossConfig
from kgrec.model.embeddings import Head, NetworkShape, SharedTables
from kgrec.model.losses import full_softmax_loss, sampled_softmax_loss
from kgrec.model.network import Encoded, Network, NetworkConfig
from kgrec.model.precision import takes_bfloat16
from kgrec.model.propagation import GraphEdges
from kgrec.model.sampled import Rows
from kgrec.training.exposures import Exposures, TowerTask
from kgrec.training.link_task import LinkConfig, LinkTask
from kgrec.training.order import shuffled_by_user

RETRIEVAL: Final = "retrieval"
_MANY_ITEMS: Final = 10_000


@dataclass(frozen=True)
class Positives:
    """What retrieval learns: user_P and item_P rows (int64), and how much each counts, weight_P (float32, >= 0)."""

    user_P: Tensor
    item_P: Tensor
    weight_P: Tensor


@dataclass(frozen=True)
class TrainingData:
    """All tensors of the train part; any part may be absent. triples_T3: head, relation, tail rows (int64).

    trainable_I: True for items that a train event names; False keeps an item out of the softmax's denominator.
    None: those that `positives` name.
    """

    edges: GraphEdges
    positives: Positives | None = None
    exposures: Exposures | None = None
    triples_T3: Tensor | None = None
    trainable_I: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """How many rows there are to learn from: positives, exposures and triples."""
        positives = 0 if self.positives is None else len(self.positives.user_P)
        labelled = 0 if self.exposures is None else len(self.exposures.user_N)
        return positives + labelled + (0 if self.triples_T3 is None else len(self.triples_T3))


class TaskConfig(TowerLossConfig, LinkConfig):
    """How each task's loss is formed."""

    temperature: float = Field(default=0.2, gt=0, description="retrieval: divisor of the cosine in the softmax, > 0")
    off_target_weight: float = Field(
        default=0.2,
        ge=0,
        description="retrieval: weight of a pair without the target event beside a pair with it, >= 0",
    )
    full_softmax_items: int = Field(
        default=30_000,
        ge=0,
        description="retrieval: up to this many items the softmax is over all, beyond it is sampled",
    )
    softmax_precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description='retrieval: numbers of the softmax over all items; "auto" = bfloat16 from 10,000 items on, '
        "where the CPU has AMX",
    )
    sampled_items: int = Field(default=4096, ge=1, description="retrieval: negatives a step where sampled, items >= 1")


class Task(Protocol):
    """One thing to learn. `name` is for people, `rows` is how many rows an epoch should see.

    rows_at_once: of a larger batch the losses are computed a part after the other, so that memory is that of a part;
    None: a batch is one part.
    """

    name: str
    rows: int
    rows_at_once: int | None

    def batches(self, generator: torch.Generator, count: int) -> Iterator[Sequence[Tensor]]:
        """Yield `count` batches that together hold every row once, in an order drawn from the generator."""

    def part(self, batch: Sequence[Tensor], rows: slice) -> Sequence[Tensor]:
        """Return the batch with some of its rows alone; what its rows share (drawn negatives) stays whole."""

    def mass(self, batch: Sequence[Tensor]) -> Mapping[str, float]:
        """Return what each loss of a batch is a mean over: the parts' losses weigh so much in that of the whole."""

    def reads(self, batch: Sequence[Tensor]) -> Rows:
        """Return the rows whose vectors the losses of a batch read."""

    def losses(self, network: Network, encoded: Encoded, batch: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Return each loss of a batch, a scalar under its name."""


class RetrievalTask:
    """Cosine softmax over the catalogue for every positive."""

    name = RETRIEVAL
    rows_at_once: int | None = None

    def __init__(self, positives: Positives, num_items: int, trainable_I: Tensor | None, config: TaskConfig) -> None:
        self.positives, self.config, self.rows = positives, config, len(positives.user_P)
        if trainable_I is None:
            trainable_I = torch.zeros(num_items, dtype=torch.bool)
            trainable_I[positives.item_P] = True
        self.trainable_I = trainable_I
        self.candidate_J = trainable_I.nonzero().flatten()
        self.sampled = num_items > config.full_softmax_items
        many = num_items >= _MANY_ITEMS or config.softmax_precision != "auto"  # fewer gain nothing by it
        self.bfloat16 = many and takes_bfloat16(config.softmax_precision)

    def batches(self, generator: torch.Generator, count: int) -> Iterator[Sequence[Tensor]]:
        """Yield (rows of positives, sampled negatives or nothing)."""
        for row_B in shuffled_by_user(self.positives.user_P, count, generator):
            drawn_M = self.candidate_J[:0]
            if self.sampled:
                size = (self.config.sampled_items,)
                drawn_M = self.candidate_J[torch.randint(len(self.candidate_J), size, generator=generator)]
            yield row_B, drawn_M

    def part(self, batch: Sequence[Tensor], rows: slice) -> Sequence[Tensor]:
        """Return some positives with all negatives."""
        row_B, drawn_M = batch
        return row_B[rows], drawn_M

    def mass(self, batch: Sequence[Tensor]) -> Mapping[str, float]:
        """Return the sum of the positives' weights."""
        return {RETRIEVAL: float(self.positives.weight_P[batch[0]].sum(dtype=torch.float64))}

    def reads(self, batch: Sequence[Tensor]) -> Rows:
        """Return the positives' users and items with the negatives; all items where the softmax is over all."""
        row_B, drawn_M = batch
        items = torch.cat([self.positives.item_P[row_B], drawn_M])
        return Rows.of(self.positives.user_P[row_B], items if self.sampled else torch.arange(len(self.trainable_I)))

    def losses(self, network: Network, encoded: Encoded, batch: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Return {"retrieval": loss}."""
        row_B, drawn_M = batch
        item_B, weight_B = self.positives.item_P[row_B], self.positives.weight_P[row_B]
        distinct_V, user_B = torch.unique(self.positives.user_P[row_B], return_inverse=True)
        users_VD, heat = encoded.users_UD.index_select(0, encoded.at("users", distinct_V)), self.config.temperature
        if not self.sampled:
            loss = full_softmax_loss(
                users_VD, encoded.items_ID, user_B, item_B, weight_B, heat, self.trainable_I, bfloat16=self.bfloat16
            )
            return {RETRIEVAL: loss}
        positives_BD, drawn_MD = (
            encoded.items_ID.index_select(0, encoded.at("items", part)) for part in (item_B, drawn_M)
        )
        count = len(self.candidate_J)
        loss = sampled_softmax_loss(users_VD, positives_BD, drawn_MD, user_B, item_B, drawn_M, weight_B, heat, count)
        return {RETRIEVAL: loss}


def make_network(
    shape: NetworkShape, config: NetworkConfig, data: TrainingData, seed: int,
    make_tables: Callable[..., Any] = SharedTables,
) -> Network:  # fmt: skip
    """Return an untrained network over the data's graph; its towers know the features' scale and the base rates."""
    network = Network(shape, config, data.edges, seed, make_tables)
    if network.towers is not None and data.exposures is not None:
        labels = {"click": data.exposures.click_N, "conversion": data.exposures.conversion_N}
        click_N = data.exposures.click_N
        rates: dict[Head, float] = {}
        for head in shape.heads:
            label_N = labels[head]
            if label_N is not None and head == "conversion" and click_N is not None:
                label_N = label_N[click_N > 0]
            if label_N is not None and len(label_N):
                rates[head] = float(label_N.double().mean())
        numeric_NF = data.exposures.numeric_NF
        network.towers.prepare(numeric_NF if isinstance(numeric_NF, Tensor) else numeric_NF.pieces, rates)
    return network


def make_tasks(shape: NetworkShape, data: TrainingData, config: TaskConfig) -> list[Task]:
    """Return the tasks that the data allows, the main one first: retrieval, else towers, else link.

    InputError when there is nothing at all to learn.
    """
    tasks: list[Task] = []
    if data.positives is not None and len(data.positives.user_P):
        tasks.append(RetrievalTask(data.positives, shape.num_items, data.trainable_I, config))
    if data.exposures is not None and len(data.exposures.user_N) and shape.heads:
        tasks.append(TowerTask(data.exposures, config))
    if data.triples_T3 is not None and len(data.triples_T3):
        tasks.append(LinkTask(data.triples_T3, shape, config))
    if not tasks:
        raise InputError(Problem("train part", "nothing to learn: no event, no labelled exposure, no triple",
                                 "check the split's shares and the roles of the events"))  # fmt: skip
    return tasks
