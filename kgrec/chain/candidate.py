"""What a candidate shows the gate: its figures, those of its rivals, and how the stored version behaves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from torch import Tensor

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.answers import MODEL, per_user
from kgrec.chain.champion import PromotedLists, asked, promoted_lists
from kgrec.chain.context import Run
from kgrec.chain.judge import PER_USER
from kgrec.chain.prepare import EVENTS
from kgrec.chain.refit import Refit
from kgrec.chain.smaller import SMALLER
from kgrec.errors import KgrecError
from kgrec.evaluation.protocol import RankingQuestion, judge_ranking
from kgrec.serving.answers import Answerer
from kgrec.serving.gate import Verdict, judge
from kgrec.serving.policy import PROMOTED, Evidence, Policy, examine, read_policy
from kgrec.serving.recommend import Version, open_version
from kgrec.serving.standing import Asked, Standing

_SAMPLE_USERS: Final = 5
_ASKED_USERS: Final = 200
_LENGTH: Final = 10
_SAME: Final = 1e-6


@dataclass(frozen=True)
class Made:
    """The artifacts of one run; features and index are absent where there is nobody to recommend to.

    again: what learned from train and validation together, where the config asks for it.
    """

    ingested: Artifact
    log: Artifact
    features: Artifact | None
    graph: Artifact
    trained: Artifact
    evaluated: Artifact
    index: Artifact | None
    again: Refit | None = None

    @property
    def learned_log(self) -> Artifact:
        """The split log whose train part the served model learned from."""
        return self.log if self.again is None else self.again.log

    @property
    def served(self) -> Artifact:
        """What a version serves."""
        return self.trained if self.again is None else self.again.trained

    def parts(self) -> dict[str, Artifact]:
        """Return what there is, by stage."""
        named = {"ingest": self.ingested, "split": self.log, "features": self.features, "graph": self.graph,
                 "train": self.trained, "evaluate": self.evaluated, "index": self.index,
                 "refit": None if self.again is None else self.again.trained}  # fmt: skip
        return {name: artifact for name, artifact in named.items() if artifact is not None}


def judge_candidate(
    run: Run, made: Made, artifact: Artifact, figures: Mapping[str, Any], baselines: Mapping[str, Any]
) -> Verdict:
    """Return the gate's verdict on a stored version: the rules of [gate], then those of its policy."""
    fault = load_fault(artifact)
    others = {name: found["test"].get("ranking", {}) for name, found in baselines.items() if "test" in found}
    lists = asked(run, made.log)
    champion = None if lists is None else (lists[0], _figures_of(run, *lists[1:]))
    more: list[tuple[bool, str]] = []
    policy = _policy(run)
    if policy is not None and fault is None:
        more = examine(policy, _evidence(run, made, artifact, policy, figures, lists))
    return judge(run.config.gate, figures.get(c.TEST, {}).get("ranking", {}), others, champion, fault, more)


def gate_rules(run: Run) -> dict[str, Any]:
    """Return all that the gate goes by, as JSON: [gate] and the content of its policy."""
    policy = _policy(run)
    rules: dict[str, Any] = run.config.gate.model_dump(mode="json", exclude={"policy"})
    return rules if policy is None else rules | {"policy": policy.model_dump(mode="json")}


def _policy(run: Run) -> Policy | None:
    named = run.config.gate.policy
    return None if named is None else read_policy(run.loaded.base / named)


def _evidence(
    run: Run, made: Made, artifact: Artifact, policy: Policy, figures: Mapping[str, Any],
    lists: PromotedLists | None,
) -> Evidence:  # fmt: skip
    """Collect what the policy's rules look at, and measure what only they ask for."""
    metric, test = run.config.gate.metric, figures.get(c.TEST, {})
    found: dict[str, Any] = {"ece": {task: one["ece"] for task, one in test.items() if "ece" in one}}
    if made.evaluated.has(PER_USER):
        tables = pl.read_parquet(made.evaluated.file(PER_USER))
        if lists is not None:
            tables = pl.concat([tables, per_user({PROMOTED: lists[2]}, lists[1], run.config.evaluation.k)])
        found |= _in_pairs(tables.filter(pl.col(c.GROUP) == "ranking"), metric, run.config.gate.baselines)
        found["events_U"] = _events_before(made.log, found.pop(c.USER_ROW))
    version = open_version(artifact.path, "candidate")
    if policy.index is not None:
        found["index_recall"] = index_recall(version)
    if policy.answers is not None:
        found["megabytes"] = sum(path.stat().st_size for path in artifact.path.rglob("*") if path.is_file()) / 1e6
        found["p99_ms"] = _latency(version)
    found["smaller"] = made.evaluated.facts.get(SMALLER)
    return Evidence(metric=metric, seed=run.config.seed, **found)


def _in_pairs(tables: pl.DataFrame, metric: str, baselines: tuple[str, ...] | None) -> dict[str, Any]:
    """Return the metric of the candidate and of each rival for the users that all of them have, in row order."""
    by_system = {
        name: frame.select(c.USER_ROW, pl.col(metric).alias(name)) for (name,), frame in tables.group_by(c.SYSTEM)
    }
    paired = by_system[MODEL].sort(c.USER_ROW)
    named = sorted(set(by_system) - {MODEL, PROMOTED}) if baselines is None else baselines
    rivals = [name for name in (*named, PROMOTED) if name in by_system]
    for name in rivals:
        paired = paired.join(by_system[name], on=c.USER_ROW, how="inner", maintain_order="left")
    numbers = {name: paired[name].cast(pl.Float64).to_numpy() for name in (MODEL, *rivals)}
    return {"candidate_U": numbers.pop(MODEL), "rivals": numbers, c.USER_ROW: paired[c.USER_ROW]}


def _events_before(log: Artifact, rows_U: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return how many events before the test part each user has."""
    events = pl.scan_parquet(log.file(EVENTS)).filter(pl.col(c.PART) != c.TEST).group_by(c.USER_ROW).len("events")
    found = rows_U.to_frame().join(events.collect(), on=c.USER_ROW, how="left", maintain_order="left")
    return found["events"].fill_null(0).cast(pl.Int64).to_numpy()


def index_recall(version: Version, k: int = _LENGTH) -> float:
    """Return the share of the exact top k that the stored index finds, over up to 200 users with a vector.

    An item counts as found when its score is at least the exact k-th, so that ties do no harm.
    """
    nothing, items_ID = np.empty(0, dtype=np.int64), version.item_vectors_ID[version.catalogue_rows]
    hits = wanted = 0
    for user in version.users.entries.head(_ASKED_USERS):
        vector_D = version.ask(user).vector_D
        if vector_D is None:
            continue
        exact = np.sort(items_ID @ vector_D)[::-1][:k]
        rows, _ = version.top(Asked(Standing.TRAINED, vector_D, nothing, nothing), k)
        hits += int((version.item_vectors_ID[rows] @ vector_D >= exact[-1] - _SAME).sum())
        wanted += len(exact)
    return hits / wanted if wanted else 1.0


def _latency(version: Version) -> float:
    """Return the 99th percentile of the milliseconds of a list of 10, asked as the service asks."""
    answerer, times = Answerer(version), []
    for user in version.users.entries.head(_ASKED_USERS):
        start = time.perf_counter()
        answerer.recommend(user=user, k=_LENGTH)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.percentile(times, 99)) if times else 0.0


def load_fault(artifact: Artifact) -> str | None:
    """Load the stored version as a service would and ask it; return what went wrong."""
    try:
        version = open_version(artifact.path)
        users = version.users.entries.head(_SAMPLE_USERS).to_list()
        answered = version.recommend([*users, "\x00nobody"], k=1)
        if answered[c.SCORE].is_nan().any():
            return "a score is not a number"
        if answered.height == 0:
            return "it recommends nothing to anybody"
    except (KgrecError, OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def promoted_figures(run: Run, made: Made) -> tuple[str, Mapping[str, Any]] | None:
    """Return the promoted version of this name and its figures on the candidate's own test question."""
    lists = promoted_lists(run, made.log)
    return None if lists is None else (lists[0], _figures_of(run, *lists[1:]))


def _figures_of(run: Run, question: RankingQuestion, top_BK: Tensor) -> Mapping[str, Any]:
    found: Mapping[str, Any] = judge_ranking(question, top_BK, run.config.evaluation).get("ranking", {})
    return found
