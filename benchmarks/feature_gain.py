"""What the store's features gain on KuaiRand: the towers with and without them, several seeds, paired.

    python benchmarks/feature_gain.py --data DIR --out LINES.jsonl [--seeds 5] [--set KEY=VALUE]...

All arms read the context, the side features and the hour. "with" also reads the views that the chain computes by
default; "vector" reads no view, but a vector of the item that the towers learn themselves. The towers are trained as in
kuairand.py: the epoch is chosen on validation, test is read once a seed. The importance of a feature is how much AUC
falls on validation when its rows are shuffled, mean over tasks and seeds. What LINES.jsonl holds is not computed
again, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kuairand import judged, trained_towers
from real_data import KUAIRAND
from scipy import stats

from feature_store.catalog import VIEWS
from kgrec.chain.context import Run, no_progress
from kgrec.chain.importance import importance_of_features
from kgrec.config import load_config
from kgrec.evaluation.importance import mean_importance
from kgrec.features.declarations import Declaration
from kgrec.stages import run_chain
from kgrec.workspace import Workspace

ARMS: dict[str, tuple[Sequence[Declaration], list[str]]] = {
    "with": (VIEWS, []),
    "without": ((), []),
    "vector": ((), ['model.towers.reads="item"']),
}
FIRST_SEED = 7


def one_line(config: Path, workspace: Path, arm: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Train one arm with one seed and return its figures and the importance of its features."""
    found = trained_towers(config, workspace, seed, overrides)
    figures = {
        part: {task: figure["auc"] for task, figure in judged(found.judge, found.network, found.vectors, part).items()}
        for part in ("validation", "test")
    }
    importance = importance_of_features(found.judge, found.network, found.vectors, found.features, seed)
    columns = len(found.features.facts["numeric"]) + len(found.features.facts["categorical"])
    return {"arm": arm, "seed": seed, "best_epoch": found.best_epoch, "columns": columns, "auc": figures,
            "importance": mean_importance(importance["auc_falls"])}  # fmt: skip


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the AUC of all arms on test, the paired gains with a 95 % interval, and the most important features."""
    by_arm = {arm: {line["seed"]: line for line in lines if line["arm"] == arm} for arm in ARMS}
    seeds = sorted(set.intersection(*(set(found) for found in by_arm.values())))
    found: dict[str, Any] = {"seeds": seeds}
    for task in by_arm["with"][seeds[0]]["auc"]["test"]:
        areas = {arm: np.array([by_arm[arm][seed]["auc"]["test"][task] for seed in seeds]) for arm in ARMS}
        found[task] = {arm: [round(float(f(area)), 4) for f in (np.mean, np.min, np.max)]
                       for arm, area in areas.items()}  # fmt: skip
        for arm in ("without", "vector"):
            gain = areas["with"] - areas[arm]
            reach = stats.t.ppf(0.975, len(seeds) - 1) * gain.std(ddof=1) / len(seeds) ** 0.5 if len(seeds) > 1 else 0.0
            found[task][f"gain over {arm}"] = {"mean": round(float(gain.mean()), 4), "plus_minus": round(reach, 4)}
    names = by_arm["with"][seeds[0]]["importance"]
    falls = {name: float(np.mean([by_arm["with"][seed]["importance"][name] for seed in seeds])) for name in names}
    ranked = sorted(falls.items(), key=lambda pair: -pair[1])
    found["most_important"] = {name: round(fall, 4) for name, fall in ranked[:5]}
    found["most_important_of_the_store"] = {name: round(fall, 4) for name, fall in ranked if "__" in name}
    found["hurting"] = {name: round(fall, 4) for name, fall in ranked if fall < -0.0005}
    return found


def main() -> None:
    """Print and keep a line an arm and seed, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines that the run adds to")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--conversion", default="long_view", choices=("long_view", "is_like"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "kuairand.toml"
        text = KUAIRAND.replace("{conversion}", arguments.conversion).format(data=arguments.data.resolve())
        config.write_text(text)
        for arm, (views, _) in ARMS.items():
            place = Workspace(Path(folder) / arm)
            with place.hold("benchmarks/feature_gain.py"):
                run_chain(Run(load_config(config, arguments.overrides), place, views, no_progress), until="graph")
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
            for arm, (_, more) in ARMS.items():
                if any(line["arm"] == arm and line["seed"] == seed for line in lines):
                    continue
                lines.append(one_line(config, Path(folder) / arm, arm, seed, [*arguments.overrides, *more]))
                with arguments.out.open("a") as stream:
                    stream.write(json.dumps(lines[-1]) + "\n")
    print(json.dumps(summary(lines), indent=1))


if __name__ == "__main__":
    main()
