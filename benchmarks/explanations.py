"""Measure how far explanations can be believed, on a finished run of a workspace, and print one JSON line.

    kgrec run configs/ml-100k.toml --workspace workspace
    python benchmarks/explanations.py --workspace workspace [--users 300] [--paths 100]

history: the history item that carries most is taken away, a random one as control, and the same score asked again.
paths: the first edge of the shown path is taken out of the graph, a random edge of the same item as control; the
network propagates anew over the changed graph. beside_random_path: the same with the stricter control, the first edge
of a random other path from the item to the history, all paths alike likely; items with one path alone are left out.
variety: how different the reasons of a list are. links: what the proposals' confidence is worth on the test triples.
Users are drawn by seed; every score is the served one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

from kgrec.artifacts import MANIFEST, load_artifact
from kgrec.chain.completing import learned_links, propose_links
from kgrec.chain.path_fidelity import GraphRescorer, PathStarts, kernel_setting, path_fidelity
from kgrec.serving.fidelity import history_fidelity, probes, reason_variety
from kgrec.serving.recommend import load
from kgrec.workspace import Workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--paths", type=int, default=100, help="probes of the graph: each propagates twice")
    parser.add_argument("--together", type=int, default=1, help="probes of the graph whose edges go at once")
    parser.add_argument("--links", action="store_true", help="also propose links, and store them")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()

    place, version = Workspace(arguments.workspace, must_exist=True), load(arguments.workspace)
    draw = np.random.default_rng(arguments.seed)
    ids = version.users.entries
    users = [ids[int(row)] for row in draw.permutation(len(ids))[: arguments.users]]
    started = time.perf_counter()
    asked = probes(version, users)
    line = {"name": version.artifact.facts["name"], "users": len(asked)}
    line["history"] = history_fidelity(version, asked, draw).facts(draw)
    line["variety"] = reason_variety(version, users)
    model = learned_links(place)
    inputs = model.trained.inputs
    parts = {name: _by_digest(place, name, inputs[name]) for name in ("split", "baselines")}
    rescorer = GraphRescorer(
        parts["split"], model.graph, model.trained, *kernel_setting(model.trained, parts["baselines"])
    )
    for name, control in (("paths", None), ("beside_random_path", PathStarts(version.paths))):
        found = path_fidelity(rescorer, asked[: arguments.paths], draw, arguments.together, control)
        line[name] = found.facts(draw)
        print(json.dumps(line), file=sys.stderr, flush=True)
    if arguments.links:
        line["links"] = propose_links(place, 1000).facts
    print(json.dumps(line | {"seconds": round(time.perf_counter() - started, 1)}))


def _by_digest(place, kind, digest):
    found = (load_artifact(manifest.parent, kind) for manifest in (place.store.root / kind).glob(f"*/{MANIFEST}"))
    return next(artifact for artifact in found if artifact.digest == digest)


if __name__ == "__main__":
    main()
