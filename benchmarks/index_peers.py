"""hnswlib and usearch on the vectors of `benchmarks/index.py`, run by an interpreter of their own.

    PYTHON benchmarks/index_peers.py FOLDER THREADS [hnswlib,usearch]

FOLDER holds items.npy, tuning.npy, asking.npy and truth.npy. The effort is raised on tuning.npy until recall@10 is .99.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

K = 10


def main() -> None:
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    items_ID, tuning_QD, asking_QD, truth_QK = (
        np.load(folder / f"{name}.npy") for name in ("items", "tuning", "asking", "truth")
    )
    tuning_QD = tuning_QD[:500]
    truth_of_tuning = np.argsort(-(tuning_QD @ items_ID.T), axis=1)[:, :K]
    builders = {"hnswlib": hnswlib_index, "usearch": usearch_index}
    for name in sys.argv[3].split(",") if len(sys.argv) > 3 else builders:
        build = builders[name]
        began = time.perf_counter()
        search, set_effort = build(items_ID, threads)
        seconds, effort = time.perf_counter() - began, 0
        for effort in (16, 32, 64, 128, 256, 512, 1024):
            set_effort(effort)
            if shared(search(tuning_QD), truth_of_tuning) >= 0.99:
                break
        rates = []
        for _ in range(2):
            began = time.perf_counter()
            found = search(asking_QD)
            rates.append(len(asking_QD) / (time.perf_counter() - began))
        told = {"system": name, "effort": effort, "recall": round(shared(found, truth_QK), 4),
                "many_per_second": round(max(rates), 1), "build_seconds": round(seconds, 1),
                "load": round(os.getloadavg()[0], 1)}  # fmt: skip
        print(json.dumps(told), flush=True)


def hnswlib_index(items_ID, threads):
    import hnswlib

    index = hnswlib.Index(space="ip", dim=items_ID.shape[1])
    index.init_index(max_elements=len(items_ID), ef_construction=100, M=16)
    index.set_num_threads(threads)
    index.add_items(items_ID)
    return lambda asked: index.knn_query(asked, k=K)[0], index.set_ef


def usearch_index(items_ID, threads):
    from usearch.index import Index

    index = Index(ndim=items_ID.shape[1], metric="ip", dtype="f32", connectivity=16, expansion_add=100)
    index.add(np.arange(len(items_ID)), items_ID, threads=threads)

    def set_effort(effort):
        index.expansion_search = effort

    return lambda asked: index.search(asked, K, threads=threads).keys, set_effort


def shared(found_QK, truth_QK):
    return float(np.mean([np.isin(t, f).mean() for f, t in zip(found_QK, truth_QK, strict=True)]))


if __name__ == "__main__":
    main()
