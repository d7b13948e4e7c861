"""Ingest ten thousand mutated triple files and RDF documents; print what became of each kind as one JSON object.

    python benchmarks/fuzz_graph.py [--documents 10000] [--seed 1]

Each is read or refused with its file and, in text, its line; any other error, and any statement that is neither kept,
quarantined nor counted as left out, is listed at the end with the number of the document (see tests/data/fuzzing.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # many small tables: threads cost more than they give
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.data.fuzzing import fuzz


def _progress(done: int) -> None:
    if done % 500 == 0:
        print(f"{done} documents", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started, spent = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(Path(folder) / "fuzzed", arguments.documents, arguments.seed, _progress)
    seconds = round(time.perf_counter() - started, 1)
    told = {"documents": arguments.documents, "seed": arguments.seed, "seconds": seconds}
    print(json.dumps(told | {"processor_seconds": round(time.process_time() - spent, 1), "found": found}))


if __name__ == "__main__":
    main()
