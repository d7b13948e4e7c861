"""The index over vectors that the model trained: exact search, the kind that `kgrec index` chooses, and peers.

    python benchmarks/index.py [--items 1000000] [--events 4000000] [--folder DIR] [--threads 2] [--queries 2000]
        [--kinds auto,auto/2,hnsw,ivf] [--peers PYTHON]

A planted shop (`benchmarks/planted.py`) is ingested and a model without towers trained for four epochs of 16 steps;
its item vectors are indexed and its users ask. Vectors are kept in `--folder` and used again. PYTHON: an interpreter
with hnswlib, usearch and numpy of its own. Prints a JSON line for each: recall@10 against exact search on users that
nothing was tuned on, and queries a second, all at once on so many threads and one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[1]
K = 10
EPOCHS, STEPS = 4, 16
Array = npt.NDArray[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=float, default=1e6)
    parser.add_argument("--events", type=float, default=4e6)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--kinds", default="auto,auto/2,hnsw,ivf", help="each with the number of its shards after a /")
    parser.add_argument("--peers")
    parser.add_argument("--only-train", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    with tempfile.TemporaryDirectory() as aside:
        folder = options.folder or Path(aside)
        if not (folder / "items.npy").exists():
            print(json.dumps(trained(folder, int(options.events), int(options.items))), flush=True)
        if options.only_train:
            return
        items_ID, users_UD = (np.load(folder / f"{name}.npy") for name in ("items", "users"))
        rng = np.random.default_rng(7)
        chosen = rng.permutation(len(users_UD))[: 2 * options.queries]
        tuning_QD, asking_QD = users_UD[chosen[: options.queries]], users_UD[chosen[options.queries :]]
        truth_QK = ours(items_ID, tuning_QD, asking_QD, options.threads, options.kinds.split(","))
        if options.peers:
            np.save(folder / "asking.npy", asking_QD)
            np.save(folder / "tuning.npy", tuning_QD)
            np.save(folder / "truth.npy", truth_QK)
            peer = str(Path(__file__).with_name("index_peers.py"))
            subprocess.run([options.peers, peer, str(folder), str(options.threads)], check=True)


def trained(folder: Path, events: int, items: int) -> dict[str, Any]:
    """Train a model on a planted shop and keep its vectors as served; return what it took."""
    from benchmarks.planted import Shop, write
    from kgrec.chain import knowledge, learn, prepare
    from kgrec.chain.context import Run
    from kgrec.config import load_config
    from kgrec.workspace import Workspace

    began = time.perf_counter()
    write(Shop.of(events, items=items), folder)
    rows = events // STEPS // 4  # a click in four events
    overrides = [f"training.epochs={EPOCHS}", f"training.batch_size={rows}", f"training.largest_batch={rows}",
                 f"training.evaluate_every={EPOCHS}", 'tasks=["click"]', "training.relations_every=0",
                 "split.validation=0.002", "split.test=0.002"]  # fmt: skip
    run = Run(load_config(folder / "shop.toml", overrides), Workspace(folder / "workspace"), ())
    with run.workspace.hold("benchmark"):
        ingested = prepare.ingest(run)
        log = prepare.split(run, ingested)
        graph = knowledge.graph(run, ingested, log)
        made = learn.learn(run, ingested, log, None, graph, None)
    _, vectors = learn.load_network(made)
    users_UD = vectors["user_vectors_UD"]
    np.save(folder / "items.npy", vectors["item_vectors_ID"].numpy())
    np.save(folder / "users.npy", users_UD[users_UD.abs().sum(1) > 0].numpy())
    stages = {name: report.seconds for name, report in run.reports.items()}
    return {"trained": len(vectors["item_vectors_ID"]), "stages": stages, "seconds": time.perf_counter() - began}


def ours(items_ID: Array, tuning_QD: Array, asking_QD: Array, threads: int, kinds: Sequence[str]) -> Array:
    """Measure exact search and these kinds, as "kind/shards"; return the true nearest places."""
    from kgrec.artifacts import Artifact, ArtifactStore
    from kgrec.serving.index import IndexConfig, ItemIndex, KindName, build_index

    def made(kind: KindName, shards: int = 1) -> tuple[Artifact, float]:
        config, began = IndexConfig(kind=kind, threads=threads, exact_items=0, shards=shards), time.perf_counter()
        store = ArtifactStore(Path(aside))
        rows_I = np.arange(len(items_ID))
        artifact, _ = store.build(
            "index",
            {},
            {"kind": kind, "shards": shards},
            lambda out: build_index(items_ID, rows_I, out, config, tuning_QD),
        )
        return artifact, time.perf_counter() - began

    with tempfile.TemporaryDirectory() as aside:
        exact = ItemIndex(made(KindName.EXACT)[0], IndexConfig(threads=threads), {})
        truth_QK, exact_rate = timed(lambda asked: exact.search_many(asked, K)[0], asking_QD[:500])
        truth_QK = np.concatenate([truth_QK, exact.search_many(asking_QD[500:], K)[0]])
        told(system="exact", recall=1.0, many_per_second=exact_rate, **one_by_one(exact, asking_QD[:100]))
        for name in kinds:
            kind, shards = KindName(name.partition("/")[0]), int(name.partition("/")[2] or 1)
            artifact, seconds = made(kind, shards)
            if artifact.facts["kind"] == "exact":
                told(system=kind.value, **artifact.facts)
                continue
            index = ItemIndex(artifact, IndexConfig(threads=threads), {})
            found_QK, rate = timed(lambda asked: index.search_many(asked, K)[0], asking_QD)  # noqa: B023
            told(system=f"kgrec {artifact.facts['kind']}", shards=shards, recall=shared(found_QK, truth_QK),
                 many_per_second=rate,
                 times_exact=rate / exact_rate, build_seconds=seconds, tried=artifact.facts["tried"],
                 **one_by_one(index, asking_QD))  # fmt: skip
            if kind is KindName.AUTO and shards == 1:
                told(system="kgrec, 1 % deleted and 1 % added", **changed(index, items_ID, asking_QD))
    return truth_QK


def changed(index: Any, items_ID: Array, asking_QD: Array) -> dict[str, Any]:
    """Delete 1 % of the items and add as many new ones by row; return what that took and whether answers follow."""
    from kgrec.serving.index_changes import IndexChanges

    count, rng = len(items_ID), np.random.default_rng(11)
    gone = rng.permutation(count)[: count // 100]
    new = items_ID[rng.permutation(count)[: count // 100]] + 0.01 * rng.standard_normal((count // 100, 1))
    began = time.perf_counter()
    rows = np.arange(count, count + len(new))
    index.change(IndexChanges.none(items_ID.shape[1]).remove(gone).add(rows, new.astype(np.float32)))
    seconds = time.perf_counter() - began
    every = np.concatenate([items_ID, new]).astype(np.float32)
    alive = np.ones(len(every), dtype=bool)
    alive[gone] = False
    hits = 0
    nobody = np.empty(0, np.int64)
    for query_D in asking_QD[:200]:
        scores = np.where(alive, every @ query_D, -np.inf)
        found = index.search(query_D, K, nobody)[0]
        hits += len(np.intersect1d(found, np.argpartition(-scores, K)[:K]))
    figures = {"seconds": seconds, "recall": hits / (200 * K), **one_by_one(index, asking_QD)}
    index.change(None)
    return figures


def one_by_one(index: Any, asking_QD: Array) -> dict[str, float]:
    nobody = np.empty(0, np.int64)
    began = time.perf_counter()
    for query_D in asking_QD:
        index.search(query_D, K, nobody)
    return {"one_by_one_per_second": len(asking_QD) / (time.perf_counter() - began)}


def timed(search: Callable[[Array], Array], asking_QD: Array) -> tuple[Array, float]:
    """Return the answers and queries a second, the better of two runs."""
    rates = []
    for _ in range(2):
        began = time.perf_counter()
        found = search(asking_QD)
        rates.append(len(asking_QD) / (time.perf_counter() - began))
    return found, max(rates)


def shared(found_QK: Array, truth_QK: Array) -> float:
    return float(np.mean([np.isin(t, f).mean() for f, t in zip(found_QK, truth_QK, strict=True)]))


def told(**figures: object) -> None:
    plain = {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps(plain | {"load": round(os.getloadavg()[0], 1)}), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
