"""What a training step costs under each balancer, relative to fixed weights, on one planted world. Prints JSON.

Run: python benchmarks/balancing.py [--users 2000] [--items 2000] [--steps 40] [--threads 1]

The balancers take turns within every round, so that whatever else the machine does meets all of them alike; the ratio
is that of the medians. Both ratios matter: a step's own time grows with the data, a solver's does not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator

import torch

from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import Network, NetworkConfig
from kgrec.model.propagation import GraphEdges
from kgrec.training.balancer import Balancer, BalancerName, BalancingOptions
from kgrec.training.balancing import BALANCERS
from kgrec.training.gradient_weights import Combiner
from kgrec.training.reproducible import reproducible
from kgrec.training.step import Batches, Step
from kgrec.training.tasks import Exposures, Positives, Task, TaskConfig, TrainingData, make_network, make_tasks

SEED = 7


def world(users: int, items: int) -> tuple[NetworkShape, TrainingData]:
    """Users and items of ten tastes, twenty events a user, three triples an item, labelled exposures of both."""
    generator = torch.Generator().manual_seed(SEED)
    user_P = torch.arange(users).repeat_interleave(20)
    item_P = (user_P % 10 + 10 * torch.randint(items // 10, (len(user_P),), generator=generator)) % items
    head_T = torch.arange(items).repeat_interleave(3)
    tail_T = items + torch.randint(items // 2, (len(head_T),), generator=generator)
    relation_T = torch.randint(4, (len(head_T),), generator=generator)
    numeric_NF = torch.randn(len(user_P), 16, generator=generator)
    click_N = (torch.rand(len(user_P), generator=generator) < numeric_NF[:, 0].sigmoid()).float()
    conversion_N = click_N * (torch.rand(len(user_P), generator=generator) < numeric_NF[:, 1].sigmoid()).float()
    categorical_NC = torch.randint(50, (len(user_P), 4), generator=generator)
    exposures = Exposures(user_P, item_P, numeric_NF, categorical_NC, click_N, conversion_N, has_impressions=True)
    shape = NetworkShape(
        num_users=users, num_items=items, num_entities=items + items // 2, num_relations=4, num_numeric=16,
        cardinalities=(50,) * 4, heads=exposures.heads,
    )  # fmt: skip
    edges = GraphEdges(torch.stack([user_P, item_P], dim=1), torch.stack([head_T, tail_T], dim=1))
    positives = Positives(user_P, item_P, torch.ones(len(user_P)))
    return shape, TrainingData(edges, positives, exposures, torch.stack([head_T, relation_T, tail_T], dim=1))


class Lane:
    """One balancer with a network of its own; all lanes see the same batches."""

    def __init__(self, name: BalancerName, shape: NetworkShape, data: TrainingData) -> None:
        self.network: Network = make_network(shape, NetworkConfig(), data, SEED).train()
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=0.01, fused=True)
        self.balancer: Balancer = BALANCERS[name]({"link": 0.1}, BalancingOptions(), SEED)
        self.seconds: list[float] = []

    def step(self, batches: Batches) -> None:
        """Take one step of training and note how long it took."""
        start = time.perf_counter()
        self.optimiser.zero_grad(set_to_none=True)
        step = Step(self.network, batches, cut=self.balancer.cuts_trunk, held_out=batches)
        self.balancer.backward(step)
        self.optimiser.step()
        self.balancer.observe(step)
        self.seconds.append(time.perf_counter() - start)


def endless(tasks: list[Task]) -> Iterator[Batches]:
    generator = torch.Generator().manual_seed(SEED)
    while True:
        for parts in zip(*(task.batches(generator, max(1, task.rows // 4096)) for task in tasks), strict=False):
            yield list(zip(tasks, parts, strict=True))


def solver_milliseconds(calls: int = 20) -> dict[str, float]:
    """Return the processor time of a call of each combiner for four random gradients; nash_mtl bargains each time."""
    generator, found = torch.Generator().manual_seed(SEED), {}
    for name, kind in BALANCERS.items():
        if issubclass(kind, Combiner):
            combiner, seconds = kind({}, BalancingOptions(nash_every=1), SEED), []
            for _ in range(calls + 3):
                gradients_TN = torch.randn(4, 20, generator=generator, dtype=torch.float64)
                start = time.process_time()
                combiner.combine(gradients_TN @ gradients_TN.T, torch.ones(4, dtype=torch.float64), tuple("abcd"))
                seconds.append(time.process_time() - start)
            found[name.value] = round(1000 * statistics.median(seconds[3:]), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1, help="one: threads that wait for each other measure the load")
    chosen = parser.parse_args()
    shape, data = world(chosen.users, chosen.items)
    batches = endless(make_tasks(shape, data, TaskConfig()))
    with reproducible(chosen.threads):
        lanes = {name: Lane(name, shape, data) for name in BalancerName}
        for _ in range(chosen.steps + 3):
            batch = next(batches)
            for lane in lanes.values():
                lane.step(batch)
    figures: dict[str, object] = {
        "users": chosen.users,
        "items": chosen.items,
        "steps": chosen.steps,
        "threads": chosen.threads,
    }
    for kind, middle in (("median", statistics.median), ("mean", statistics.fmean)):
        taken = {name.value: middle(lane.seconds[3:]) for name, lane in lanes.items()}  # the first steps load libraries
        figures[f"{kind}_milliseconds"] = {name: round(1000 * seconds, 1) for name, seconds in taken.items()}
        figures[f"{kind}_over_fixed"] = {name: round(seconds / taken["fixed"], 2) for name, seconds in taken.items()}
    figures["solver_milliseconds"] = solver_milliseconds()
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
