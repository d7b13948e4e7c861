"""Measure full-catalogue evaluation beside the bare product and top-k, ranx and ir-measures; print JSON.

    python benchmarks/evaluation.py --data DIR [--ranx PYTHON] [--rounds 2] [--list-users 20000]

DIR holds amazon_book_kgat/interactions.parquet (user, item, split). The vectors are random, 64 numbers each: what is
measured is the judging, so all sides share them. PYTHON is the interpreter of an environment of its own that has ranx:
`python3 -m venv ENV && ENV/bin/pip install ranx`. Sides take turns; the clock's ratios and
the processor's are both there, for on a busy machine only the second says much.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import ir_measures
import numpy as np
import polars as pl
import torch

from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.ranking import metrics_per_user, summarise, top_k_dot

KS = (10, 20, 100)
DIMENSIONS = 64
SHOWN = ("recall", "ndcg", "mrr")
TURN = 5_000
BARE_CHUNKS = (64, 128, 256, 512)  # users at a time that the bare side may choose from: its best counts
ASK_RANX = """
import json, sys, time
import numpy as np
from ranx import Qrels, Run, evaluate
folder, rounds = sys.argv[1], int(sys.argv[2])
lists = np.load(f"{folder}/lists.npz")
names = [f"{family}@{k}" for k in (10, 20, 100) for family in ("recall", "ndcg", "mrr")]
start = time.perf_counter()
evaluate(Qrels({"0": {"1": 1}}), Run({"0": {"1": 1.0, "2": 0.5}}), names)
compiled = time.perf_counter()
ends, top, scores = lists["ends"], lists["top"], lists["scores"]
wanted = {str(u): {str(i): 1 for i in lists["items"][ends[u]:ends[u + 1]]} for u in range(len(top))}
given = {str(u): {str(i): float(s) for i, s in zip(top[u], scores[u])} for u in range(len(top))}
qrels, run = Qrels(wanted), Run(given)
converted = time.perf_counter()
seconds = []
for _ in range(rounds):
    begun, used = time.perf_counter(), time.process_time()
    found = evaluate(qrels, run, names)
    seconds.append([time.perf_counter() - begun, time.process_time() - used])
print("RANX " + json.dumps({"compile": compiled - start, "convert": converted - compiled, "seconds": seconds,
                            "figures": {name: float(value) for name, value in found.items()}}))
"""


CHUNKS = (64, 512, 2048)


class World:
    """The log of Amazon-Book and random vectors: who is asked, what each had, what is relevant."""

    def __init__(self, data: Path) -> None:
        log = pl.read_parquet(data / "amazon_book_kgat" / "interactions.parquet").select("user", "item", "split")
        users, items = (log[name].rank("dense").to_numpy().astype(np.int64) - 1 for name in ("user", "item"))
        self.num_users, self.num_items = int(users.max()) + 1, int(items.max()) + 1
        test = (log["split"] == "test").to_numpy()
        shape = (self.num_users, self.num_items)
        self.seen = Pairs.of(torch.from_numpy(users[~test]), torch.from_numpy(items[~test]), *shape)
        relevant = Pairs.of(torch.from_numpy(users[test]), torch.from_numpy(items[test]), *shape)
        self.asked_B = relevant.counts().nonzero()[:, 0]
        self.truth = relevant.take(self.asked_B)
        generator = torch.Generator().manual_seed(0)
        self.users_UD = torch.randn(self.num_users, DIMENSIONS, generator=generator)
        self.items_ID = torch.randn(self.num_items, DIMENSIONS, generator=generator)

    def lists(self, asked_B: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
        """Return everybody's first hundred, what was seen left out and ties broken."""
        return top_k_dot(self.users_UD, self.items_ID, asked_B, self.seen, max(KS), chunk=chunk)

    def bare(self, asked_B: torch.Tensor, chunk: int) -> None:
        """Multiply and take the top alone: nothing masked, no ties broken, nothing kept."""
        items_DI = self.items_ID.T
        room_BI = torch.empty(chunk, self.num_items)
        for rows in torch.split(asked_B, chunk):
            torch.mm(self.users_UD[rows], items_DI, out=room_BI[: len(rows)]).topk(max(KS), dim=1)


def judged(top_BK: torch.Tensor, truth: Pairs) -> dict[str, float]:
    return summarise(metrics_per_user(top_BK, truth, KS), len(top_BK))


def timed(work: Callable[[], Any]) -> tuple[np.ndarray[Any, Any], Any]:
    """Return (seconds on the clock, seconds of the processor) and the result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return np.array([time.perf_counter() - wall, time.process_time() - processor]), result


def full_catalogue(world: World, rounds: int) -> dict[str, Any]:
    """Time vectors to figures against the bare product and top-k, in turns of 5,000 users."""
    few_B = world.asked_B[:2_000]
    tried = {chunk: min(timed(lambda c=chunk: world.bare(few_B, c))[0][1] for _ in range(3)) for chunk in BARE_CHUNKS}
    chunk = min(tried, key=lambda size: tried[size])
    bare, lists, figures, ratios, sums = np.zeros(2), np.zeros(2), np.zeros(2), [], dict[str, float]()
    for _ in range(rounds):
        for places_B in torch.split(torch.arange(len(world.asked_B)), TURN):
            asked_B = world.asked_B[places_B]
            alone, _ = timed(lambda asked_B=asked_B: world.bare(asked_B, chunk))
            made, top_BK = timed(lambda asked_B=asked_B: world.lists(asked_B))
            told, found = timed(lambda top=top_BK, places=places_B: judged(top, world.truth.take(places)))
            bare, lists, figures = bare + alone, lists + made, figures + told
            ratios.append((made[0] + told[0]) / alone[0])
            sums = {name: sums.get(name, 0.0) + found[name] * len(asked_B) for name in found}
    whole, asked = lists + figures, rounds * len(world.asked_B)
    return {
        "users": len(world.asked_B), "items": world.num_items, "threads": torch.get_num_threads(),
        "bare_chunk": chunk, "turns": len(ratios),
        "ratio_of_clock": ratio(whole[0], bare[0]), "ratio_of_processor": ratio(whole[1], bare[1]),
        "ratio_of_clock_median_turn": round(median(ratios), 3),
        "seconds_a_round": {"bare": each(bare, rounds), "lists": each(lists, rounds), "figures": each(figures, rounds)},
        "figures": {name: sums[name] / asked for name in sorted(sums) if name.split("@")[0] in SHOWN},
    }  # fmt: skip


def each(seconds: np.ndarray[Any, Any], rounds: int) -> dict[str, float]:
    clock, processor = (seconds / rounds).round(2).tolist()
    return {"clock": clock, "processor": processor}


def ratio(ours: float, theirs: float) -> float:
    return round(float(ours / theirs), 3)


def given_lists(world: World, rounds: int, users: int, ranx: str | None) -> dict[str, Any]:
    """Time the judging of finished lists, the same for all; what the others convert beforehand is not counted."""
    asked_B, truth = world.asked_B[:users], world.truth.take(torch.arange(min(users, len(world.asked_B))))
    top_BK = world.lists(asked_B)
    scores_BK = (world.users_UD[asked_B][:, None, :] * world.items_ID[top_BK]).sum(2).double().numpy()
    names = [str(user) for user in range(len(top_BK))]
    qrels = {name: dict.fromkeys(map(str, own), 1) for name, own in zip(names, rows_of(truth), strict=True)}
    run = {
        name: dict(zip(map(str, top), scores, strict=True))
        for name, top, scores in zip(names, top_BK.tolist(), scores_BK.tolist(), strict=True)
    }
    measures = {"recall": ir_measures.R, "ndcg": ir_measures.nDCG, "mrr": ir_measures.RR}
    wanted = {f"{name}@{k}": measure @ k for name, measure in measures.items() for k in KS}
    ours, theirs = [], []
    for _ in range(rounds):
        seconds, other = timed(lambda: ir_measures.calc_aggregate(list(wanted.values()), qrels, run))
        theirs.append(seconds)
        for _ in range(2):
            seconds, figures = timed(lambda: judged(top_BK, truth))
            ours.append(seconds)
    mine, slow = np.median(ours, axis=0), np.median(theirs, axis=0)
    found = {
        "users": len(top_BK), "seconds": rounded(mine), "ir_measures_seconds": rounded(slow),
        "ir_measures_times_slower": ratio(slow[0], mine[0]), "by_processor": ratio(slow[1], mine[1]),
        "ir_measures_difference": max(abs(other[measure] - figures[name]) for name, measure in wanted.items()),
    }  # fmt: skip
    if ranx is None:
        return found
    answer = ask_ranx(ranx, truth, top_BK, scores_BK, rounds)
    if "fault" in answer:
        return found | {"ranx_fault": answer["fault"]}
    mine = np.median([*ours, *(timed(lambda: judged(top_BK, truth))[0] for _ in range(rounds))], axis=0)
    slow = np.median(answer["seconds"], axis=0)
    return found | {
        "ranx_seconds": rounded(slow), "ranx_compile": round(answer["compile"], 1),
        "ranx_convert": round(answer["convert"], 1), "ranx_times_slower": ratio(slow[0], mine[0]),
        "ranx_by_processor": ratio(slow[1], mine[1]),
        "ranx_difference": max(abs(value - figures[name]) for name, value in answer["figures"].items()),
    }  # fmt: skip


def ask_ranx(python: str, truth: Pairs, top_BK: torch.Tensor, scores_BK: Any, rounds: int) -> dict[str, Any]:
    threads = {name: str(torch.get_num_threads()) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/lists.npz", top=top_BK.numpy(), scores=scores_BK, ends=truth.indptr.numpy(),
                 items=truth.indices.numpy())  # fmt: skip
        done = subprocess.run([python, "-c", ASK_RANX, folder, str(rounds)], capture_output=True, text=True,
                              check=False, env=os.environ | threads)  # fmt: skip
    line = next((line for line in done.stdout.splitlines() if line.startswith("RANX ")), None)
    answer: dict[str, Any] = {"fault": done.stderr[-500:]} if line is None else json.loads(line[5:])
    return answer


def rows_of(pairs: Pairs) -> list[list[int]]:
    return [own.tolist() for own in torch.split(pairs.indices, pairs.counts().tolist())]


def rounded(seconds: np.ndarray[Any, Any]) -> dict[str, float]:
    return each(seconds, 1)


def memory(data: Path) -> None:
    """Evaluate once in a process of its own and print its peak memory in megabytes, before and after."""
    world = World(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    judged(world.lists(world.asked_B), world.truth)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak_mb_with_data_and_vectors": before // 1024, "peak_mb": after // 1024}))


def one_chunk(data: Path, users: int, chunk: int) -> None:
    """Make lists with one size of chunks in a process of its own; print seconds, peak memory and their digest."""
    world = World(data)
    world.lists(world.asked_B[:chunk], chunk)
    start = time.perf_counter()
    top_BK = world.lists(world.asked_B[:users], chunk)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    digest = hashlib.sha256(top_BK.numpy().tobytes()).hexdigest()[:12]
    print(json.dumps({"seconds": round(seconds, 2), "peak_mb": after // 1024, "lists": digest}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--ranx", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--list-users", type=int, default=20_000, help="users of the part that is given the lists")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only-chunk", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.only_chunk:
        one_chunk(arguments.data, arguments.list_users, arguments.only_chunk)
        return
    if arguments.only_memory:
        memory(arguments.data)
        return
    command = [sys.executable, __file__, "--data", str(arguments.data), "--threads", str(arguments.threads)]
    peak = subprocess.run([*command, "--only-memory"], capture_output=True, text=True, check=True)
    chunks = {
        size: json.loads(subprocess.run(
            [*command, "--list-users", str(arguments.list_users), "--only-chunk", str(size)], capture_output=True,
            text=True, check=True,
        ).stdout)
        for size in CHUNKS
    }  # fmt: skip
    world = World(arguments.data)
    figures = {
        "load_average": os.getloadavg()[0],
        "memory": json.loads(peak.stdout),
        "chunks": chunks,
        "full_catalogue": full_catalogue(world, arguments.rounds),
        "given_lists": given_lists(world, arguments.rounds, arguments.list_users, arguments.ranx),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
