"""Which batches a step has: each task's rows spread evenly over an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Protocol

import torch

from kgrec.seeds import derive_seed
from kgrec.training.step import Batches
from kgrec.training.tasks import Task


class ScheduleSizes(Protocol):
    """What of the training's config a schedule depends on."""

    @property
    def batch_size(self) -> int:
        """Rows of each task in a step."""

    @property
    def largest_batch(self) -> int:
        """Rows of each task in a step where an epoch would else not see all."""

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch at most."""

    @property
    def epoch_share(self) -> float:
        """The part of an epoch's batches that is given."""


def endless(tasks: Sequence[Task], config: ScheduleSizes, seed: int, epoch: int) -> Iterator[Batches]:
    """Yield a batch of each task for as long as one is wanted, in an order drawn anew for each epoch."""
    streams = []
    for task in tasks:
        generator = torch.Generator().manual_seed(derive_seed(seed, "held out", task.name, epoch))
        streams.append((task, cycle(task.batches(generator, max(1, -(-task.rows // config.batch_size))))))
    while True:
        yield [(task, next(batches)) for task, batches in streams]


def schedule(tasks: Sequence[Task], config: ScheduleSizes, seed: int, epoch: int) -> Iterator[Batches]:
    """Yield the batches of each step: the task with most rows has one in every step, the others where theirs fall.

    A task with more batches than `epoch_steps` makes them larger, up to `largest_batch`, and gives the first of them,
    in an order drawn anew for each epoch. Of all batches `epoch_share` is given, of each task one at least.
    """
    counts = [count_of_batches(task.rows, config) for task in tasks]
    all_steps = min(max(counts), config.epoch_steps)
    steps = math.ceil(config.epoch_share * all_steps)
    plan = []
    for task, total in zip(tasks, counts, strict=True):
        count = math.ceil(config.epoch_share * min(total, all_steps))
        generator = torch.Generator().manual_seed(derive_seed(seed, "batches", task.name, epoch))
        due = {(2 * part + 1) * steps // (2 * count) for part in range(count)}
        plan.append((task, task.batches(generator, total), due))
    for step in range(steps):
        yield [(task, next(batches)) for task, batches, due in plan if step in due]


def count_of_batches(rows: int, config: ScheduleSizes) -> int:
    """Return into how many batches a task's rows are cut."""
    usual, fewest = (max(1, -(-rows // size)) for size in (config.batch_size, config.largest_batch))
    return max(min(usual, config.epoch_steps), min(usual, fewest))
