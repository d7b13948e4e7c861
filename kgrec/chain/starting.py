"""The stages `baselines` and `train` of a run that may go on from the promoted version (training.start).

An increment climbs on from the settings of the baselines whose weights the score uses, and leaves the others' as they
were chosen; when a full training is due, the increment is made beside it and the two are compared, so that it is known
what the increments are worth.

Axes: B users asked, K places, I items.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file
from torch import Tensor

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.context import Meter, Run
from kgrec.chain.increments import START, Start, agrees, find_start, increment_rule
from kgrec.chain.learn import chosen_tasks, learn, learned_by, suited
from kgrec.chain.questions import Judge
from kgrec.chain.refining import refine_baselines
from kgrec.chain.tuning import tune_baselines
from kgrec.evaluation.protocol import answer, judge_ranking
from kgrec.serving.package import VECTORS

LENGTH: Final = 10


def settle_baselines(run: Run, ingested: Artifact, log: Artifact, graph: Artifact) -> Artifact | None:
    """Return the baselines' settings: tuned on validation or, for an increment, refined from the base's."""
    start = start_of(run, ingested, log, graph)
    if start is None or start.full or start.base is None:
        return tune_baselines(run, log, graph)
    return refine_baselines(run, log, graph, start.base.tuned)


@contextmanager
def settled_ahead(
    run: Run, ingested: Artifact, log: Artifact, graph: Artifact
) -> Iterator[Callable[[], Artifact | None]]:
    """Yield what settles the baselines; of an increment, which has few fits to make, a thread does so from now on.

    Not where the threads of a product are given: their number is the whole process's.
    """

    def settle() -> Artifact | None:
        return settle_baselines(run, ingested, log, graph)

    start = start_of(run, ingested, log, graph)
    if start is None or start.full or run.config.training.threads:
        yield settle
        return
    with ThreadPoolExecutor(1, thread_name_prefix="kgrec-settles-baselines") as beside:
        ahead = [beside.submit(settle)]
        yield lambda: ahead.pop().result() if ahead else settle()  # tried again: not ahead any more


def learn_from_start(
    run: Run, ingested: Artifact, log: Artifact, features: Artifact | None, graph: Artifact, tuned: Artifact | None
) -> Artifact:
    """Train in full, or go on from the promoted version; where both are made, compare them and keep the full one."""
    start = start_of(run, ingested, log, graph)
    if start is None:
        return learn(run, ingested, log, features, graph, tuned)
    run.tell("train")(("in full: " if start.full else "an increment: ") + start.why)
    if not start.full or start.base is None:
        return learn(run, ingested, log, features, graph, tuned, start)
    full = learn(run, ingested, log, features, graph, tuned)
    increment = learn(run, ingested, log, features, graph, tuned, start)
    return _measured(run, log, full, increment, start, _judge(run, ingested, log))


def start_of(run: Run, ingested: Artifact, log: Artifact, graph: Artifact) -> Start | None:
    """Return where this run begins, looked up once; None: from scratch."""
    key = (ingested.digest, log.digest, graph.digest)
    if key not in run.starts:
        tasks = chosen_tasks(run, ingested)
        run.starts[key] = find_start(run, learned_by(suited(run.config, tasks, graph)[0], tasks), log, graph)
    found: Start | None = run.starts[key]
    return found


def _judge(run: Run, ingested: Artifact, log: Artifact) -> Judge:
    return Judge(run.config.evaluation, log, None, None, chosen_tasks(run, ingested))


def _measured(run: Run, log: Artifact, full: Artifact, increment: Artifact, start: Start, judge: Judge) -> Artifact:
    """Return the full training with its agreement with the increment among its facts."""

    def make(out: Path) -> dict[str, Any]:
        for name in full.files:
            shutil.copyfile(full.file(name), out / name)
        found = agreement(judge, load_file(full.file(VECTORS)), load_file(increment.file(VECTORS)))
        run.tell("train")(
            f"overlap@{LENGTH} with the increment {found[f'overlap@{LENGTH}']:.3f}, {found['full']:.4f} against "
            f"{found['increment']:.4f}: increments are {'' if agrees(increment_rule(run), found) else 'not '}trusted"
        )
        return dict(full.facts) | {START: start.facts() | {"agreement": found}}

    inputs = dict(full.inputs) | {"full": full.digest, "increment": increment.digest}
    meter = Meter()
    artifact, cached = run.workspace.store.build("train", inputs, dict(full.config) | {START: start.facts()}, make)
    run.note("train", meter.stop(cached=cached))
    return artifact


def agreement(judge: Judge, full: dict[str, Tensor], increment: dict[str, Tensor]) -> dict[str, float]:
    """Return the mean share of the top ten that two models have in common on validation, and the NDCG of each."""
    question, metric = judge.question(c.VALIDATION), f"ndcg@{judge.config.k[0]}"
    lists = [
        answer(question, judge.scorer(vectors, c.VALIDATION), max(LENGTH, *judge.config.k))
        for vectors in (full, increment)
    ]
    quality = [judge_ranking(question, top_BK, judge.config)["ranking"][metric] for top_BK in lists]
    return {f"overlap@{LENGTH}": overlap(*(top_BK[:, :LENGTH] for top_BK in lists)), "full": quality[0],
            "increment": quality[1]}  # fmt: skip


def overlap(one_BK: Tensor, other_BK: Tensor) -> float:
    """Return the mean share of the places of the first lists whose items are in the second; -1 is an empty place.

    >>> import torch
    >>> overlap(torch.tensor([[1, 2], [3, -1]]), torch.tensor([[2, 5], [3, -1]]))
    0.75
    """
    held_BK = (one_BK[:, :, None] == other_BK[:, None, :]).any(dim=2) & (one_BK >= 0)
    places_B = (one_BK >= 0).sum(dim=1)
    shares_B = held_BK.sum(dim=1) / places_B.clamp(min=1)
    asked_B = places_B > 0
    return float(shares_B[asked_B].double().mean()) if bool(asked_B.any()) else 1.0
