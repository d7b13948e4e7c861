"""Several processes: `python -m benchmarks.distributed curve|half|sampled [--launcher torchrun|ray]`, JSON on stdout.

curve: the loss curve of two processes, one of which is killed on the way, beside that of one process; local tables and
TorchRec's. half: what each of two processes holds of a table of 5 million x 64 rows. sampled: error and seconds of
sampled propagation beside the exact one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn import functional

from kgrec.model.embeddings import NetworkShape, SharedTables
from kgrec.model.network import NetworkConfig
from kgrec.model.propagation import GraphEdges
from kgrec.model.sampled import Rows
from kgrec.training.distributed.launch import Launch, launcher_of
from kgrec.training.distributed.sharding import group_of_one, tables_of
from kgrec.training.tasks import Positives, TaskConfig, TrainingData, make_network, make_tasks
from kgrec.training.trainer import Progress, TrainingConfig, train
from kgrec.training.world import World

MODULE = "benchmarks.distributed"
USERS, ITEMS, OTHERS, EVENTS = 4000, 2000, 500, 120_000
CONFIG = TrainingConfig(epochs=8, patience=0, optimiser="adagrad", relations_every=0, checkpoint_every=1, threads=1)
KINDS = {"local": {}, "row_wise": {"tables": "torchrec", "sharding": "row_wise"},
         "table_wise": {"tables": "torchrec", "sharding": "table_wise"}}  # fmt: skip
ROWS, DIMENSIONS, STEPS, BATCH = 5_000_000, 64, 20, 4096


def world_of(users: int, items: int, others: int, events: int) -> tuple[NetworkShape, TrainingData]:
    """Return a planted log of power-law users and items, and a graph of two facts an item."""
    draw = torch.Generator().manual_seed(1)
    user_X, item_X = ((torch.rand(events, generator=draw) ** 3 * size).long() for size in (users, items))
    pairs_X2 = torch.unique(torch.stack([user_X, item_X], dim=1), dim=0)
    tail_T = items + (torch.rand(2 * items, generator=draw) ** 2 * others).long()
    triples_T3 = torch.stack([torch.arange(2 * items) % items, torch.arange(2 * items) // items, tail_T], dim=1)
    shape = NetworkShape(num_users=users, num_items=items, num_entities=items + others, num_relations=2)
    positives = Positives(pairs_X2[:, 0], pairs_X2[:, 1], torch.ones(len(pairs_X2)))
    return shape, TrainingData(GraphEdges(pairs_X2, triples_T3[:, [0, 2]]), positives, triples_T3=triples_T3)


def learned(kind: str, world: World, checkpoint: Path | None, dies: Path | None) -> list[dict[str, float]]:
    """Train the planted world and return the losses by epoch; `dies`: kill this process once, half way."""
    shape, data = world_of(USERS, ITEMS, OTHERS, EVENTS)
    config = CONFIG.model_copy(update=KINDS[kind])
    model = NetworkConfig(dimensions=32, propagation="sampled", fanout=8)
    network = make_network(shape, model, data, 3, tables_of(config))

    def tell(progress: Progress) -> None:
        if dies is not None and progress.epoch == CONFIG.epochs // 2 and not dies.exists():
            dies.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    tasks = make_tasks(shape, data, TaskConfig(full_softmax_items=0, sampled_items=1024))
    return train(network, tasks, config, 3, None, checkpoint=checkpoint, owner=kind, progress=tell, world=world).history


def main(arguments: Sequence[str]) -> None:
    """Do what one of the processes does: the job names the folder and what is measured."""
    job = json.loads(Path(arguments[0]).read_text())
    if mine := not distributed.is_initialized():
        distributed.init_process_group("gloo")
    world, folder = World.joined(), Path(job["folder"])
    if job["what"] == "curve":
        found = {}
        for kind in job["kinds"]:
            dies = folder / "died" if kind == "local" else None
            found[kind] = learned(kind, world, folder / f"{kind}.safetensors", dies)
        if world.leads:
            (folder / "curve.json").write_text(json.dumps(found))
    else:
        (folder / f"half{world.rank}.json").write_text(json.dumps(held()))
    if mine:
        distributed.destroy_process_group()


def resident_mb() -> float:
    """Return this process's resident memory in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def held() -> dict[str, Any]:
    """Make the table, take a few steps of random rows on it, and return what this process holds."""
    config = TrainingConfig(tables="torchrec", sharding="row_wise", optimiser="adagrad", threads=1)
    make, before = tables_of(config), resident_mb()
    shape = NetworkShape(num_users=ROWS, num_items=0, num_entities=1, num_relations=0)
    tables = make(shape, DIMENSIONS, 2, 0.1, torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(World.joined().rank)
    start = time.perf_counter()
    for _ in range(STEPS):
        users_VD, entities_FD = tables.rows(torch.randint(ROWS, (BATCH,), generator=draw), torch.zeros(1).long())
        (users_VD.square().sum() + entities_FD.sum()).backward()
    seconds = (time.perf_counter() - start) / STEPS
    rows = [len(part) for _, part in tables.held("users")]
    return {"rows": rows, "rss_growth_mb": resident_mb() - before, "peak_rss_mb": peak_mb(), "step_seconds": seconds,
            "table_mb": ROWS * DIMENSIONS * 4 / 1e6}  # fmt: skip


def peak_mb() -> float:
    """Return the peak of this process's resident memory in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def launched(launcher: str, job: dict[str, Any], folder: Path) -> None:
    orders = folder / "job.json"
    orders.write_text(json.dumps(job | {"folder": str(folder)}))
    launch = Launch(launcher=launcher, processes=2, restarts=2)  # type: ignore[arg-type]
    launcher_of(launch.launcher)(launch, MODULE, orders)


def curve(launcher: str, kinds: Sequence[str]) -> dict[str, Any]:
    """Return the largest relative difference of a loss between two processes and one with local tables."""
    alone = learned("local", World(), None, None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        launched(launcher, {"what": "curve", "kinds": kinds}, folder)
        found = json.loads((folder / "curve.json").read_text())
        died = (folder / "died").exists()
    apart = {kind: largest_difference(history, alone) for kind, history in found.items()}
    last = {name: value for name, value in alone[-1].items() if name.startswith("loss/")}
    return {"launcher": launcher, "epochs": len(alone), "a_process_died": died, "losses_of_one": last,
            "largest_relative_difference": apart}  # fmt: skip


def largest_difference(one: Sequence[dict[str, float]], other: Sequence[dict[str, float]]) -> float:
    """Return the largest relative difference of a loss in an epoch."""
    pairs = [(mine[name], theirs[name]) for mine, theirs in zip(one, other, strict=True)
             for name in theirs if name.startswith("loss/")]  # fmt: skip
    return max(abs(mine - theirs) / abs(theirs) for mine, theirs in pairs)


def half(launcher: str) -> dict[str, Any]:
    """Return what each of two processes holds, and what one alone does."""
    with tempfile.TemporaryDirectory() as name:
        launched(launcher, {"what": "half"}, Path(name))
        two = [json.loads((Path(name) / f"half{rank}.json").read_text()) for rank in range(2)]
    with group_of_one():
        return {"launcher": launcher, "two_processes": two, "one_process": held()}


def sampled() -> dict[str, Any]:
    """Return error and seconds of an encoded batch by fanout, beside the exact encoder."""
    shape, data = world_of(100_000, 20_000, 5000, 1_000_000)
    found: dict[str, Any] = {}
    draw = torch.Generator().manual_seed(2)
    assert data.positives is not None
    row_B = torch.randint(len(data.positives.user_P), (BATCH,), generator=draw)
    reads = Rows.joined([Rows.of(data.positives.user_P[row_B], data.positives.item_P[row_B])])
    network = make_network(shape, NetworkConfig(propagation="sampled", id_dropout=0.0), data, 3, SharedTables)
    start = time.process_time()
    exact = network.eval().encode()
    (exact.users_UD.sum() + exact.items_ID.sum()).backward()
    found["exact"] = {"processor_seconds": round(time.process_time() - start, 3)}
    wanted = torch.cat([exact.users_UD[reads.users], exact.items_ID[reads.items]]).detach()
    for fanout in (2, 4, 8, 16, 32, 64):
        network = make_network(shape, NetworkConfig(propagation="sampled", fanout=fanout, id_dropout=0.0), data, 3)
        network.train()
        start = time.process_time()
        one = network.encode(reads)
        (one.users_UD.sum() + one.items_ID.sum()).backward()
        seconds = time.process_time() - start
        vectors = [torch.cat([one.users_UD, one.items_ID]).detach()]
        with torch.no_grad():
            for _ in range(15):
                drawn = network.encode(reads)
                vectors.append(torch.cat([drawn.users_UD, drawn.items_ID]))
        mean = functional.normalize(torch.stack(vectors).mean(0), dim=1)
        found[f"fanout {fanout}"] = {
            "cosine_of_one_draw": round(float((vectors[0] * wanted).sum(1).mean()), 4),
            "relative_error_of_one_draw": round(float((vectors[0] - wanted).norm() / wanted.norm()), 4),
            "cosine_of_the_mean_of_16": round(float((mean * wanted).sum(1).mean()), 4),
            "processor_seconds": round(seconds, 3),
        }
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["curve", "half", "sampled"])
    parser.add_argument("--launcher", default="torchrun")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = {"curve": lambda: curve(options.launcher, options.kinds), "half": lambda: half(options.launcher),
            "sampled": sampled}  # fmt: skip
    print(json.dumps({"load": os.getloadavg(), **work[options.what]()}, indent=1))
