"""Click and conversion on KuaiRand: the towers alone over the chain's own features, several seeds, one JSON line each.

    python benchmarks/kuairand.py --data DIR [--seeds 5] [--conversion long_view|is_like] [--set KEY=VALUE]...

DIR holds the folder kuairand_pure_sub as its card describes it. The towers of this config read no shared vector, so
retrieval and link prediction, which they do not depend on, are not trained. The epoch is chosen by the mean AUC on
validation; test is read once a seed. ECE is given without and with Platt's calibration on validation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from real_data import KUAIRAND

from feature_store.catalog import VIEWS
from kgrec.artifacts import Artifact, load_artifact
from kgrec.chain.context import Run, no_progress
from kgrec.chain.questions import Judge, exported_vectors
from kgrec.chain.tensors import network_shape, training_data
from kgrec.chain.towers import calibrate
from kgrec.config import TaskName, load_config
from kgrec.evaluation.calibration import CalibrationName
from kgrec.evaluation.classification import auc, classification_metrics
from kgrec.model.network import Network
from kgrec.stages import run_chain
from kgrec.training.tasks import make_network, make_tasks
from kgrec.training.trainer import train
from kgrec.workspace import Workspace

TASKS = (TaskName.CLICK, TaskName.CONVERSION)


@dataclass(frozen=True)
class Towers:
    """Trained towers of one seed, and what they are judged by."""

    network: Network
    judge: Judge
    vectors: Mapping[str, Any]
    features: Artifact
    best_epoch: int


def trained_towers(config_path: Path, workspace: Path, seed: int, overrides: list[str]) -> Towers:
    """Train the towers of one seed on what the workspace's stages left; the epoch is chosen on validation."""
    config = load_config(config_path, [f"seed={seed}", *overrides]).config
    log, features, graph = (load_artifact(next((workspace / "artifacts" / kind).iterdir()))
                            for kind in ("split", "features", "graph"))  # fmt: skip
    data = training_data(log, features, graph, TASKS, config.evaluation.target, config.losses.off_target_weight)
    shape = network_shape(log, features, graph, data, config.losses)
    network = make_network(shape, config.model, data, config.seed)
    judge = Judge(config.evaluation, log, features, graph, TASKS)

    def objective(trained: Network) -> dict[str, float]:
        found = judge.predictions(trained, exported_vectors(trained), "validation").values()
        return {"objective": float(np.mean([auc(part.probability_N, part.label_N) for part in found]))}

    tasks = [task for task in make_tasks(shape, data, config.losses) if task.name == "towers"]
    result = train(network, tasks, config.training, config.seed, objective)
    return Towers(network, judge, exported_vectors(network), features, result.best_epoch)


def one_seed(config_path: Path, workspace: Path, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Train the towers of one seed and return their figures."""
    found = trained_towers(config_path, workspace, seed, overrides)
    network, judge, vectors = found.network, found.judge, found.vectors
    figures = {part: judged(judge, network, vectors, part) for part in ("validation", "test")}
    fitted = calibrate(network, judge, vectors, CalibrationName.PLATT)
    after = {name: figure["ece"] for name, figure in judged(judge, network, vectors, "test").items()}
    return {"seed": seed, "best_epoch": found.best_epoch, **figures, "test_ece_calibrated": after,
            "calibration": fitted}  # fmt: skip


def judged(judge: Judge, network: Network, vectors: Any, part: str) -> dict[str, dict[str, float]]:
    """Return the classification figures of a part."""
    found = judge.predictions(network, vectors, part)
    return {name: classification_metrics(rows.probability_N, rows.label_N) for name, rows in found.items()}


def main() -> None:
    """Print a line a seed and one of means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--conversion", default="long_view", choices=("long_view", "is_like"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "kuairand.toml"
        text = KUAIRAND.replace("{conversion}", arguments.conversion).format(data=arguments.data.resolve())
        config.write_text(text)
        place = Workspace(Path(folder) / "workspace")
        with place.hold("benchmarks/kuairand.py"):
            run_chain(Run(load_config(config, arguments.overrides), place, VIEWS, no_progress), until="graph")
        lines = []
        for seed in range(7, 7 + arguments.seeds):
            lines.append(one_seed(config, Path(folder) / "workspace", seed, arguments.overrides))
            print(json.dumps(lines[-1]), flush=True)
    areas = {name: [line["test"][name]["auc"] for line in lines] for name in lines[0]["test"]}
    means = {name: {"mean": float(np.mean(found)), "std": float(np.std(found))} for name, found in areas.items()}
    print(json.dumps({"conversion": arguments.conversion, "seeds": arguments.seeds, "test_auc": means}))


if __name__ == "__main__":
    main()
