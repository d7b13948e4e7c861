"""Where a training step's time goes: by part, and by operation; print one JSON line a dataset.

    python benchmarks/step_profile.py --data DIR [--only ml-100k,lastfm,amazon-book] [--steps 20] [--threads 1]

The step is that of the chain with the dataset's config: one batch of every task, fixed weights. Parts are processor
seconds of one process (with --threads 1 they are wall seconds, too); operations are the profiler's own time. The same
steps are taken before and after the process is told to keep freed memory, as the trainer does: "giving_back" is before.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from real_data import CONFIGS, ROOT
from torch.profiler import ProfilerActivity, profile

from feature_store.catalog import VIEWS
from kgrec.allocator import keep_freed_memory
from kgrec.chain.context import Run
from kgrec.chain.lesson import Lesson, prepared
from kgrec.chain.prepare import available_tasks
from kgrec.config import TaskName, load_config
from kgrec.stages import run_chain
from kgrec.training.optimiser import make_optimiser
from kgrec.training.reproducible import reproducible
from kgrec.training.schedule import count_of_batches
from kgrec.workspace import Workspace


def step_of(run: Run) -> tuple[Callable[[dict[str, float]], None], dict[str, Any]]:
    """Return a function that takes a step and adds each part's seconds, and what a step is made of."""
    ingested, log, features, graph = (run_chain(run, until=stage) for stage in ("ingest", "split", "features", "graph"))
    tasks = run.config.tasks or tuple(TaskName(name) for name in available_tasks(ingested))
    taught = prepared(Lesson(run.config, tasks, log, features, graph, ahead=log, judged=False))
    network, config = taught.network.train(), run.config.training
    optimiser, balancer = make_optimiser(network, config), config.balancer(run.config.seed)
    streams = []
    for task in taught.tasks:
        batches = list(task.batches(torch.Generator().manual_seed(7), count_of_batches(task.rows, config)))
        streams.append((task, batches))
    turn = [0]

    def step(spent: dict[str, float]) -> None:
        def lap(name: str, since: float) -> float:
            now = time.process_time()
            spent[name] = spent.get(name, 0.0) + now - since
            return now

        clock = time.process_time()
        optimiser.zero_grad(set_to_none=True)
        encoded = network.encode()
        clock = lap("encode (propagation)", clock)
        losses = {}
        for task, batches in streams:
            losses |= task.losses(network, encoded, batches[turn[0] % len(batches)])
            clock = lap(f"loss: {task.name}", clock)
        total = sum(balancer.prior_of(name) * loss for name, loss in losses.items())
        total.backward()
        clock = lap("backward", clock)
        optimiser.step()
        lap("optimiser", clock)
        turn[0] += 1

    shape = network.shape
    rows = {task.name: len(batches[0][0]) for task, batches in streams}
    numbers = sum(parameter.numel() for parameter in network.parameters())
    return step, {"users": shape.num_users, "items": shape.num_items, "entities": shape.num_entities,
                  "parameters": numbers, "rows_of_a_step": rows}  # fmt: skip


def timed(step: Callable[[dict[str, float]], None], steps: int) -> tuple[dict[str, float], float]:
    """Return each part's seconds over so many steps, after three more, and the page faults of one step."""
    for _ in range(3):
        step({})
    spent: dict[str, float] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        step(spent)
    return spent, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--only", default="ml-100k,lastfm,amazon-book")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    for name in arguments.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            path = ROOT / "configs" / "ml-100k.toml"
            if name in CONFIGS:
                path = Path(folder) / f"{name}.toml"
                path.write_text(CONFIGS[name].format(data=arguments.data.resolve()))
            run = Run(load_config(path), Workspace(Path(folder) / "workspace"), VIEWS)
            with reproducible(arguments.threads):
                step, made_of = step_of(run)
                giving_back, faults_before = timed(step, arguments.steps)
                keep_freed_memory()
                spent, faults = timed(step, arguments.steps)
                with profile(activities=[ProfilerActivity.CPU]) as watched:
                    for _ in range(arguments.steps):
                        step({})
            whole, before = sum(spent.values()), sum(giving_back.values())
            found = sorted(watched.key_averages(), key=lambda one: -one.self_cpu_time_total)
            busy = sum(one.self_cpu_time_total for one in found)
            print(
                json.dumps({
                    "dataset": name, **made_of, "milliseconds_of_a_step": round(1000 * whole / arguments.steps, 1),
                    "page_faults_of_a_step": round(faults),
                    "giving_back": {"milliseconds_of_a_step": round(1000 * before / arguments.steps, 1),
                                    "page_faults_of_a_step": round(faults_before)},
                    "parts": {part: round(seconds / whole, 3) for part, seconds in spent.items()},
                    "operations": {one.key: round(one.self_cpu_time_total / busy, 3) for one in found[:8]},
                }),
                flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
