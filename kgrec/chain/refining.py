"""The baselines' settings of an increment: what the served score uses is climbed on, on the validation of today.

Axes: I items, X kept weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.sparse
from safetensors.numpy import load_file, save_file

from kgrec.artifacts import Artifact
from kgrec.chain.context import Run
from kgrec.chain.tuning import (
    KERNEL,
    LINEAR,
    Teacher,
    best_baseline,
    read_tuned,
    settings_of,
    told,
    write_tuned,
)
from kgrec.evaluation.baseline_roles import LeftOutError, Scorer
from kgrec.evaluation.baselines import Earlier, key_of
from kgrec.evaluation.item_weights import ItemWeights, largest_of_each_row

FITTED: Final = "fitted.safetensors"
EARLIER: Final = "earlier"
"""What an increment keeps of settings tried on earlier logs, beside those it tried itself."""
BEST: Final = "best"
"""The figures of what was chosen on the day that an earlier setting was tried."""


def refine_baselines(run: Run, log: Artifact, graph: Artifact, before: Artifact) -> Artifact:
    """Return the settings of an earlier run, those that the served score uses climbed on from there on new validation.

    That is two or three fits, where the whole grid is dozens: a neighbour that lost against the other side before is
    not tried again, nor what the score does not use (the kernel's own popularity). The other linear ones are judged
    where they stand, so that all figures that choose among them are of today; the rest stands as it was. The weights
    of the best linear one, cut to what is served, are kept, so that training need not fit it again.
    """
    keep, metric = run.config.blocks.neighbour_weights, f"ndcg@{run.config.evaluation.k[0]}"

    def make(out: Path) -> dict[str, Any]:
        teacher, found = Teacher(run.config, log, graph, {}), read_tuned(before)
        scorers: dict[str, Scorer | None] = {}
        for names, fixed in ((LINEAR, ()), (KERNEL, ("popularity",))):
            leader = best_baseline(found, names, metric)
            for name in [name for name in names if "validation" in found.get(name, {})]:
                choice = found[name]
                start = earlier(choice, metric, fixed if name == leader else tuple(choice["setting"]))
                try:
                    events, tuned = teacher.tune(name, (choice["events"], start), keep=names is LINEAR)
                except LeftOutError as reason:
                    found[name] = {"left_out": str(reason)}
                    continue
                found[name] = told(events, tuned) | {EARLIER: _not_tried_again(choice, tuned.tried)}
                scorers = _best_alone(scorers | {name: tuned.scorer}, found, metric)
        for name, scorer in scorers.items():
            if keep and isinstance(scorer, ItemWeights):
                _save(out / FITTED, name, largest_of_each_row(scorer.matrix_II, teacher.kept_per_row(keep)))
        write_tuned(out, found)
        return {}

    inputs = {"split": log.digest, "graph": graph.digest, "base": before.digest}
    return run.stage("baselines", inputs, settings_of(run) | {"neighbour_weights": keep}, make)


def _best_alone(
    scorers: Mapping[str, Scorer | None], found: Mapping[str, Any], metric: str
) -> dict[str, Scorer | None]:
    """Return the best of the linear ones alone: each is items x items."""
    best = best_baseline(found, [name for name in scorers if name in LINEAR], metric)
    return {} if best is None else {best: scorers[best]}


def earlier(choice: Mapping[str, Any], metric: str, fixed: Sequence[str]) -> Earlier:
    """Return from where a baseline's grid is climbed on, given what was kept of it.

    An earlier figure counts by how far it was behind the best of its own day: another day's users are easier or harder.
    """
    behind = {
        key_of(one["setting"]): float(one["validation"][metric]) - float(one[BEST][metric])
        for one in [*choice.get(EARLIER, []), *_with_best(choice)]
    }
    return Earlier(choice["setting"], behind, fixed)


def _with_best(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(one) | {BEST: choice["validation"]["ranking"]} for one in choice["tried"]]


def _not_tried_again(choice: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    again = {key_of(one["setting"]) for one in tried}
    latest = {key_of(one["setting"]): one for one in [*choice.get(EARLIER, []), *_with_best(choice)]}
    return [one for key, one in latest.items() if key not in again]


def _save(path: Path, name: str, weights_II: Any) -> None:
    shape = np.asarray(weights_II.shape, dtype=np.int64)
    arrays = {"data": weights_II.data, "indices": weights_II.indices, "indptr": weights_II.indptr, "shape": shape}
    save_file({f"{name}.{part}": np.ascontiguousarray(array) for part, array in arrays.items()}, path)


def fitted_before(tuned: Artifact) -> dict[str, Any]:
    """Return the items x items weights that `refine_baselines` kept, by the baseline's name; none of a full tuning."""
    if not tuned.has(FITTED):
        return {}
    arrays = load_file(tuned.file(FITTED))
    found = {}
    for name in {key.partition(".")[0] for key in arrays}:
        data, indices, indptr, shape = (arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr", "shape"))
        found[name] = scipy.sparse.csr_array((data, indices, indptr), shape=tuple(shape.tolist()))
    return found
