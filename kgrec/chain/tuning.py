"""The baselines, tuned on validation before anything else: their settings serve the comparison and the served score.

Axes: N pairs of a user with an item, X links of items to nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from torch import Tensor

from kgrec import columns as c
from kgrec.artifacts import Artifact, write_atomically
from kgrec.chain.context import Run, StageProgress
from kgrec.chain.prepare import EVENTS
from kgrec.chain.questions import Judge
from kgrec.config import RunConfig, TaskName
from kgrec.evaluation.als import available
from kgrec.evaluation.baseline_roles import Known, LeftOutError
from kgrec.evaluation.baseline_roles import Scorer as BaselineScorer
from kgrec.evaluation.baselines import BASELINES, Earlier, Tuned, fit, tune
from kgrec.evaluation.graph_kernel import incidence, kernel_weights
from kgrec.evaluation.item_weights import largest_of_each_row
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.protocol import RankingQuestion
from kgrec.evaluation.ranking import EvaluationConfig, ExcludeSeen, Target

TUNED: Final = "tuned.json"
LINEAR: Final = ("ease", "linear_filter", "item_knn")
KERNEL: Final = ("graph_kernel",)
SOURCES: Final = (LINEAR, KERNEL)
"""Whose weights the served score takes, the best of each kind."""
FAR_BEHIND: Final = "far_behind"
"""Marks what an increment does not judge again: its figures are of an earlier day."""
TARGET_ALONE: Final = "target"
ANY: Final = "any"
_DAY: Final = 86_400_000_000


def tune_baselines(run: Run, log: Artifact, graph: Artifact) -> Artifact | None:
    """Choose each baseline's setting on validation; None where there is nothing to rank."""
    config = run.config
    if not log.has(EVENTS):
        return None

    def make(out: Path) -> dict[str, Any]:
        teacher = Teacher(config, log, graph, {})
        found: dict[str, Any] = {}
        for done, name in enumerate(BASELINES):
            run.progress(StageProgress("baselines", name, done, len(BASELINES)))
            try:
                events, tuned = teacher.tune(name)
            except LeftOutError as reason:
                found[name] = {"left_out": str(reason)}
                continue
            found[name] = told(events, tuned)
        write_tuned(out, found)
        return {}

    return run.stage("baselines", {"split": log.digest, "graph": graph.digest}, settings_of(run), make)


def settings_of(run: Run) -> dict[str, Any]:
    """Return what of the config the settings depend on."""
    judged = run.config.evaluation.model_dump(mode="json", exclude={"details"})
    settings = {"evaluation": judged, "baselines": run.config.baselines.model_dump(mode="json")}
    return settings | {"ials": {"available": available()}}


def told(events: str, tuned: Tuned) -> dict[str, Any]:
    """Return what is kept of a tuned baseline."""
    return {"setting": dict(tuned.setting), "events": events, "tried": list(tuned.tried),
            "validation": {"ranking": dict(tuned.validation)}}  # fmt: skip


def write_tuned(out: Path, found: Mapping[str, Any]) -> None:
    """Write what `read_tuned` returns."""
    write_atomically(out / TUNED, (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())


def read_tuned(tuned: Artifact) -> dict[str, dict[str, Any]]:
    """Return each baseline's setting, which events it learns from, its validation figures, or why it was left out."""
    found: dict[str, dict[str, Any]] = json.loads(tuned.file(TUNED).read_text())
    return found


class Teacher:
    """Tunes and fits baselines on what the validation question knows: the train part of log and graph.

    tuned: what `read_tuned` returned, once there is something. fitted_before: items x items weights of a baseline, cut
    to what the served score keeps, by its name, where tuning kept them.
    """

    def __init__(
        self, config: RunConfig, log: Artifact, graph: Artifact, tuned: Mapping[str, Mapping[str, Any]],
        fitted_before: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.tuned, self.fitted_before = tuned, fitted_before or {}
        self.repeats = config.evaluation.exclude_seen is not ExcludeSeen.ANY
        self._config, self._log, self._graph = config, log, graph
        self.question = Judge(config.evaluation, log, None, None, (TaskName.CLICK,)).question(c.VALIDATION)
        self.num_items = self.question.history.num_columns
        self._known: dict[str, Known] = {}

    def known(self, events: str) -> Known:
        """Return what a baseline may learn from, of any event or of the target event alone."""
        if events not in self._known:
            train_UI = histories(self._config.evaluation, self.question)[events]
            self._known[events] = Known(train_UI, self._ages(train_UI), self.item_nodes, self.repeats)
        return self._known[events]

    def kept_per_row(self, weights: int) -> int:
        """Return how many weights of an item are kept, of so many in all."""
        return max(1, weights // max(self.num_items, 1))

    def fitted(self, name: str) -> BaselineScorer:
        """Return a baseline fitted with its chosen setting."""
        choice = self.tuned[name]
        return fit(name, self.known(choice["events"]), choice["setting"], self._config.baselines)

    def best(self, names: Sequence[str]) -> str | None:
        """Return the baseline that is best on validation by NDCG at the first k; None where none of them ran."""
        return best_baseline(self.tuned, names, f"ndcg@{self._config.evaluation.k[0]}")

    def tune(self, name: str, start: tuple[str, Earlier] | None = None, *, keep: bool = False) -> tuple[str, Tuned]:
        """Return the variant (which events it learns from) and setting that is best on validation.

        start: a variant, which stands, and from where its grid is climbed. keep: return the fitted scorer, too.
        """
        config, question = self._config, self.question
        shape = question.history.num_rows, question.history.num_columns
        truth_UI = Pairs.of(question.users_B[question.truth.rows()], question.truth.indices, *shape)
        ks = config.evaluation.k
        metric = f"ndcg@{ks[0]}"
        found = [
            (events, tune(name, self.known(events), truth_UI, question.seen, ks=ks, metric=metric,
                          config=config.baselines, start=start[1] if start else None, keep=keep))
            for events in histories(config.evaluation, question)
            if start is None or events == start[0]
        ]  # fmt: skip
        return max(found, key=lambda one: one[1].validation[metric])

    def kernel_neighbours(self, hub: float, weights: int) -> Any:
        """Return the graph kernel of a hub exponent as sparse items x items weights, float32, cut to so many in all."""
        links_IE, _ = incidence(self.item_nodes, self.num_items)
        kernel_II = kernel_weights(links_IE, hub)
        return largest_of_each_row(kernel_II, self.kept_per_row(weights))

    @cached_property
    def item_nodes(self) -> Tensor:
        """Each item row with a node that an edge of the train graph joins it to, in either direction."""
        triples = pl.read_parquet(self._graph.file("triples.parquet")).filter(pl.col(c.PART) == c.TRAIN)
        ends_T2 = torch.tensor(triples.select(c.HEAD_ROW, c.TAIL_ROW).to_numpy().astype(np.int64)).reshape(-1, 2)
        both_X2 = torch.cat([ends_T2, ends_T2.flip(1)])
        return both_X2[both_X2[:, 0] < self.num_items]

    def _ages(self, train_UI: Pairs) -> Tensor | None:
        """Return the days from each pair's last train event to the end of train; None without time."""
        if not self._log.facts.get("has_time"):
            return None
        events = pl.read_parquet(self._log.file(EVENTS)).filter(pl.col(c.PART) == c.TRAIN)
        last = events.group_by(c.USER_ROW, c.ITEM_ROW).agg(pl.col(c.TIME).max().dt.timestamp("us").alias("at"))
        keys = last[c.USER_ROW].cast(pl.Int64) * train_UI.num_columns + last[c.ITEM_ROW].cast(pl.Int64)
        order = keys.arg_sort()
        sorted_keys, at = torch.tensor(keys[order].to_numpy()), torch.tensor(last["at"][order].to_numpy())
        place_N = torch.searchsorted(sorted_keys, train_UI.keys()).clamp(max=max(len(at) - 1, 0))
        age_N = (at.max() - at[place_N]).double() / _DAY if len(at) else torch.zeros(0, dtype=torch.float64)
        return torch.where(sorted_keys[place_N] == train_UI.keys(), age_N, age_N.max()) if len(at) else age_N


def ranks_today(choice: Mapping[str, Any]) -> bool:
    """Say whether a baseline ran, and has a figure to be compared with others."""
    return "validation" in choice and not choice.get(FAR_BEHIND, False)


def best_baseline(tuned: Mapping[str, Mapping[str, Any]], names: Iterable[str], metric: str) -> str | None:
    """Return which of the named baselines is best on validation by a metric; None where none of them ran.

    One that an increment left far behind, with a figure of another day, is none of them.
    """
    ran = [name for name in names if ranks_today(tuned.get(name, {}))]
    return max(ran, key=lambda name: tuned[name]["validation"]["ranking"].get(metric, 0.0), default=None)


def histories(config: EvaluationConfig, question: RankingQuestion) -> dict[str, Pairs]:
    """Return what baselines may learn from: any event and, where that differs, the target event alone."""
    target = {TARGET_ALONE: question.target_history} if config.target is Target.CONVERSION else {}
    return {ANY: question.history} | target
