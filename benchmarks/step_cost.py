"""What a training step costs for each node and each edge of the graph: propagation, a small batch, the optimiser.

    python benchmarks/step_cost.py [--steps 3]

Random graphs of three sizes, default dimensions, one thread; processor seconds of a step, the least of `--steps`. The
batch is small and the same everywhere, so that what differs is what grows with the graph. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import NetworkConfig
from kgrec.model.propagation import GraphEdges
from kgrec.training.tasks import Positives, RetrievalTask, TaskConfig, TrainingData, make_network

SIZES = ((30_000, 100_000), (30_000, 400_000), (120_000, 100_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = [step(nodes, edges, options.steps) for nodes, edges in SIZES]
    table = np.array([[nodes, 2 * edges, 1.0] for nodes, edges in SIZES])
    per_node, per_edge, rest = np.linalg.solve(table, np.array(seconds))
    print(json.dumps({"seconds": seconds, "per_node": per_node, "per_edge": per_edge, "rest": rest}))


def step(nodes: int, edges: int, steps: int) -> float:
    """Return the processor seconds of one step: half the nodes are users, half items; an edge counts both ways."""
    generator = torch.Generator().manual_seed(7)
    users = items = nodes // 2
    pairs = torch.stack([torch.randint(size, (edges,), generator=generator) for size in (users, items)], dim=1)
    data = TrainingData(
        GraphEdges(pairs, torch.zeros(0, 2, dtype=torch.int64), None),
        positives=Positives(pairs[:4096, 0], pairs[:4096, 1], torch.ones(4096)),
    )
    shape = NetworkShape(num_users=users, num_items=items, num_entities=items, num_relations=1)
    config = TaskConfig(full_softmax_items=0, sampled_items=256)
    network = make_network(shape, NetworkConfig(), data, 7)
    task = RetrievalTask(data.positives, items, None, config)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01, fused=True)
    took = []
    for _ in range(steps):
        began = time.process_time()
        optimiser.zero_grad(set_to_none=True)
        batch = next(iter(task.batches(generator, 1)))
        sum(task.losses(network, network.encode(), batch).values()).backward()
        optimiser.step()
        took.append(time.process_time() - began)
    return min(took)


if __name__ == "__main__":
    main()
