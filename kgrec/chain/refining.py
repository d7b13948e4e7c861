"""The baselines' settings of an increment: what the served score uses is climbed on, on the validation of today.

Axes: I items, X kept weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
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
from kgrec.evaluation.baseline_roles import LeftOutError
from kgrec.evaluation.baselines import Earlier, key_of
from kgrec.evaluation.item_weights import ItemWeights, largest_of_each_row

FITTED: Final = "fitted.safetensors"
EARLIER: Final = "earlier"
"""What an increment keeps of settings tried on earlier logs, beside those it tried itself."""


def refine_baselines(run: Run, log: Artifact, graph: Artifact, before: Artifact) -> Artifact:
    """Return the settings of an earlier run, those that the served score uses climbed on from there on new validation.

    That is two or three fits, where the whole grid is dozens: a neighbour that lost against the other side before is
    not tried again, nor what the score does not use (the kernel's own popularity). The other baselines stand as they
    were. The weights of the linear one, cut to what is served, are kept, so that training need not fit it again.
    """
    keep = run.config.blocks.neighbour_weights

    def make(out: Path) -> dict[str, Any]:
        teacher, found = Teacher(run.config, log, graph, {}), read_tuned(before)
        metric = f"ndcg@{run.config.evaluation.k[0]}"
        for names, fixed in ((LINEAR, ()), (KERNEL, ("popularity",))):
            name = best_baseline(found, names, metric)
            if name is None:
                continue
            with suppress(LeftOutError):
                start = found[name]["events"], earlier(found[name], metric, fixed)
                events, tuned = teacher.tune(name, start, keep=names is LINEAR)
                found[name] = told(events, tuned) | {EARLIER: _not_tried_again(found[name], tuned.tried)}
                if keep and isinstance(tuned.scorer, ItemWeights):
                    _save(out / FITTED, name, largest_of_each_row(tuned.scorer.matrix_II, teacher.kept_per_row(keep)))
        write_tuned(out, found)
        return {}

    inputs = {"split": log.digest, "graph": graph.digest, "base": before.digest}
    return run.stage("baselines", inputs, settings_of(run) | {"neighbour_weights": keep}, make)


def earlier(choice: Mapping[str, Any], metric: str, fixed: Sequence[str]) -> Earlier:
    """Return from where a baseline's grid is climbed on, given what was kept of it."""
    tried = [*choice.get(EARLIER, []), *choice["tried"]]
    figures = {key_of(one["setting"]): float(one["validation"][metric]) for one in tried}
    return Earlier(choice["setting"], figures, fixed)


def _not_tried_again(choice: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    again = {key_of(one["setting"]) for one in tried}
    latest = {key_of(one["setting"]): one for one in [*choice.get(EARLIER, []), *choice["tried"]]}
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
