"""Build a graph of ten million triples: the chain's own stages, from Parquet, and N-Triples beside bare pyoxigraph.

    python benchmarks/graph_build.py [--triples 10000000] [--ntriples 2000000] [--keep DIR]

Generated from a seed: heads, tails and relations after a power law, ids as text, a two-hundredth of the rows repeated
(beside those the law repeats by itself), a thousand rows with a blank end, and a small log over twenty thousand of the
entities. The stages `ingest`, `split` and `graph` run as `kgrec graph` runs them, checks, quarantine, canonical tables,
files and fingerprints included, then the propagation matrix (CSR) is made of the result. It is checked against the
distinct triples that were generated: nothing may be lost. Seconds are wall clock and processor, the peak is that of a
process of its own. N-Triples: what a bare loop over pyoxigraph's parser takes and what reading into frames takes, in
turns, the median of three. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

BAD = 1_000
ITEMS = 20_000
CONFIG = """
name = "graph-build"
seed = 7
tasks = ["click", "kg"]
[interactions]
path = "log.parquet"
columns = { user = "user", item = "item", event = "event", time = "time" }
[interactions.roles]
click = ["click"]
[knowledge]
triples = ["triples.parquet"]
tolerated = 1.0
[split]
kind = "time"
"""


def power_law(draw: np.random.Generator, size: int, kinds: int, exponent: float) -> np.ndarray:
    """Rows of 0..kinds-1, row r with a chance like (r + 1) ** -exponent."""
    uniform, power = draw.random(size), 1.0 - exponent
    return (((kinds + 1) ** power - 1) * uniform + 1) ** (1 / power) - 1


def generate(folder: Path, size: int, seed: int = 7) -> dict[str, int]:
    """Write log.parquet and triples.parquet; return how many rows are good once, good again, and bad."""
    draw = np.random.default_rng(seed)
    entities = max(size // 5, 2 * ITEMS)
    fresh = size - size // 200 - BAD
    ends = [power_law(draw, fresh, kinds, exponent).astype(np.int64) for kinds, exponent in
            ((entities, 0.6), (100, 0.9), (entities, 0.8))]  # fmt: skip
    place = np.concatenate([np.arange(fresh), draw.integers(0, fresh, size // 200)])
    head, relation, tail = (one[place] for one in ends)
    keys = (head * 100 + relation) * entities + tail
    distinct = len(np.unique(keys))
    names = pl.DataFrame({"head": head, "relation": relation, "tail": tail}).select(
        pl.format("m.{}", "head").alias("head"), pl.format("domain.type.relation_{}", "relation").alias("relation"),
        pl.format("m.{}", "tail").alias("tail"),
    )  # fmt: skip
    bad = names.head(BAD).with_columns(pl.lit(" ").alias("tail"))
    mixed = pl.concat([names, bad])
    mixed = mixed[draw.permutation(mixed.height)]
    mixed.write_parquet(folder / "triples.parquet", row_group_size=500_000)
    events = 5 * ITEMS
    items = power_law(draw, events, ITEMS, 0.5).astype(np.int64)
    pl.DataFrame(
        {"user": draw.integers(0, events // 20, events), "item": items, "time": np.arange(events) + 10**9}
    ).select(
        pl.format("u{}", "user").alias("user"),
        pl.format("m.{}", "item").alias("item"),
        pl.lit("click").alias("event"),
        "time",
    ).unique(["user", "item"], maintain_order=True).write_parquet(folder / "log.parquet")
    (folder / "graph.toml").write_text(CONFIG)
    return {"rows": mixed.height, "distinct": distinct, "repeated": len(keys) - distinct, "bad": BAD}


def build(folder: Path) -> dict[str, Any]:
    """Run the stages and make the matrix; called in a process of its own."""
    from kgrec.artifacts import Artifact
    from kgrec.chain.context import Run
    from kgrec.chain.tensors import training_data
    from kgrec.config import TaskName, load_config
    from kgrec.evaluation.ranking import Target
    from kgrec.model.propagation import build_adjacency
    from kgrec.stages import run_chain
    from kgrec.workspace import Workspace

    before = _spent()
    workspace, made = Workspace(folder / "workspace"), dict[str, Artifact]()

    def call(name: str, stage: Any, *arguments: Any) -> Any:
        made[name] = stage(*arguments)
        return made[name]

    with workspace.hold("graph_build"):
        run = Run(load_config(folder / "graph.toml"), workspace)
        graph = run_chain(run, call, until="graph")
    assert isinstance(graph, Artifact)
    staged = _spent()
    data = training_data(made["split"], None, graph, (TaskName.CLICK, TaskName.KG), Target.CLICK, 0.0)
    sizes = (int(made["split"].facts["users"]), int(made["split"].facts["items"]), int(graph.facts["entities"]))
    adjacency = build_adjacency(data.edges, *sizes, 1.0)
    after = _spent()
    facts = made["ingest"].facts
    return {
        "seconds": round(after[0] - before[0], 1), "processor_seconds": round(after[1] - before[1], 1),
        "stages": {name: report.seconds for name, report in run.reports.items()},
        "csr_seconds": round(after[0] - staged[0], 1), "csr_entries": int(adjacency.matrix_KK.values().numel()),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
        "rows_in": facts["inputs"]["knowledge.triples[0]"]["rows"], "quarantined": facts["quarantined"],
        "triples": facts["triples"], "triples_of_the_graph": graph.facts["triples"],
        "entities": graph.facts["entities"],
    }  # fmt: skip


def _spent() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def ntriples(folder: Path, size: int) -> dict[str, Any]:
    """Read the first rows as N-Triples: a bare loop, into frames, and a whole ingest."""
    import pyoxigraph

    from kgrec.data.rdf import read_rdf

    rows = (
        pl.read_parquet(folder / "triples.parquet", n_rows=size)
        .filter(pl.col("tail") != " ")
        .unique(maintain_order=True)
    )
    path = folder / "own.nt"
    lines = rows.select(
        pl.format("<http://kg.example/{}> <http://kg.example/{}> <http://kg.example/{}> .", *rows.columns)
    )
    lines.write_csv(path, include_header=False, quote_style="never")

    def bare() -> None:
        with path.open("rb") as stream:
            deque(pyoxigraph.parse(input=stream, format=pyoxigraph.RdfFormat.N_TRIPLES), maxlen=0)

    assert rows.height == read_rdf(path, "own.nt").triples.height
    wall, cpu = {"bare": [], "frames": []}, {"bare": [], "frames": []}
    for _ in range(3):
        for name, call in (("bare", bare), ("frames", lambda: read_rdf(path, "own.nt"))):
            start = _spent()
            call()
            end = _spent()
            wall[name].append(end[0] - start[0])
            cpu[name].append(end[1] - start[1])
    median = {name: round(statistics.median(values), 2) for name, values in wall.items()}
    processor = {name: round(statistics.median(values), 2) for name, values in cpu.items()}
    return {"triples": rows.height, "seconds": median, "processor_seconds": processor,
            "times_as_long_as_bare": round(median["frames"] / median["bare"], 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triples", type=int, default=10_000_000)
    parser.add_argument("--ntriples", type=int, default=2_000_000)
    parser.add_argument("--keep", type=Path, help="a folder to generate into, and to leave there")
    parser.add_argument("--part", choices=("generate", "build", "ntriples"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        sizes = {"generate": [arguments.triples], "build": [], "ntriples": [arguments.ntriples]}[arguments.part]
        print(json.dumps(globals()[arguments.part](arguments.keep, *sizes)))
        return
    with tempfile.TemporaryDirectory() as spare:
        folder = arguments.keep or Path(spare)
        folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for part in ("generate", "build", "ntriples"):
            command = [sys.executable, __file__, "--part", part, "--keep", folder, "--triples", str(arguments.triples),
                       "--ntriples", str(arguments.ntriples)]  # fmt: skip
            done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
            found[part] = json.loads(done.stdout.splitlines()[-1])
    told, built = found["generate"], found["build"]
    assert built["rows_in"] == told["rows"]
    assert built["triples"] == told["distinct"]
    assert sum(built["quarantined"].values()) == told["repeated"] + told["bad"]
    print(json.dumps(found | {"load": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()
