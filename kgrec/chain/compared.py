"""From the kept figures of arms and seeds to what is said of them: levels, differences, segments, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import polars as pl

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain import prepare
from kgrec.chain.arms import Arm, owns
from kgrec.chain.measured import measured_of
from kgrec.chain.release import read_figures
from kgrec.config import RunConfig, TaskName
from kgrec.data.vocabulary import Vocabulary
from kgrec.evaluation.compare import Difference, Figure, Measured, corrected, differences, levels
from kgrec.evaluation.compare_words import ArmKind, headlines, verdicts
from kgrec.graph.controls import GraphControl
from kgrec.seeds import numpy_generator
from kgrec.serving.package import RELATIONS

Cut = Callable[[Measured], Measured]
_THIRDS: Final = (1 / 3, 2 / 3)
_RELATIONS: Final = 5


def compared(
    config: RunConfig, arms: Sequence[Arm], learned: Sequence[TaskName], seeds: Sequence[int],
    made: Mapping[str, Sequence[Artifact]], cuts: Mapping[str, Cut],
) -> dict[str, Any]:  # fmt: skip
    """Return figures, differences and verdicts (README, Compare). made: the evaluations by arm, in the seeds' order."""
    target, by_name = config.evaluation.target, {arm.name: arm for arm in arms}
    measured = {name: [measured_of(one) for one in found] for name, found in made.items()}
    reference, *others = by_name
    names = list(read_figures(made[reference][0])[1])
    rivals = {name: [measured_of(made[reference][0], name)] for name in names}

    def wanted(arm: str, figure: Figure) -> bool:
        return owns(by_name[arm], figure[0], target) and owns(by_name[reference], figure[0], target)

    def generator(purpose: str) -> np.random.Generator:
        return numpy_generator(config.seed, "compare", purpose)

    others_measured = {name: measured[name] for name in others}
    found = differences(measured[reference], others_measured, generator("arms"), wanted)
    decisive = {(line.group, line.metric) for line in headlines(found)}
    lines = _in_two_families(found, decisive)
    segments = corrected(
        _in_segments(measured, reference, cuts, generator, lambda a, f: f in decisive and wanted(a, f))
    )
    against = _in_two_families(differences(measured[reference], rivals, generator("baselines")), decisive)
    kinds = {name: _kind(arm) for name, arm in by_name.items()}
    return {
        "name": config.name,
        "reference": reference,
        "seeds": list(seeds),
        "arms": {
            name: {
                "change": arm.words,
                "tasks": [task.value for task in arm.tasks_of(learned)],
                "test": levels(measured[name], generator(f"level {name}"), partial(owns, arm, target=target)),
            }
            for name, arm in by_name.items()
        },
        "baselines": {name: levels(found, generator(f"level {name}")) for name, found in rivals.items()},
        "differences": [line.as_dict() for line in lines],
        "segments": [line.as_dict() for line in segments],
        "baseline_differences": [line.as_dict() for line in against],
        "verdicts": verdicts(reference, lines, segments, against, kinds, len(seeds)),
    }


def _in_two_families(lines: Sequence[Difference], decisive: set[Figure]) -> list[Difference]:
    """Return the lines corrected: those that the verdicts speak of as one family, the other metrics as a second."""
    families = ([line for line in lines if ((line.group, line.metric) in decisive) is first] for first in (True, False))
    judged = {(line.arm, line.group, line.metric): line for family in families for line in corrected(family)}
    return [judged[line.arm, line.group, line.metric] for line in lines]


def _in_segments(
    measured: Mapping[str, Sequence[Measured]], reference: str, cuts: Mapping[str, Cut],
    generator: Callable[[str], np.random.Generator], wanted: Callable[[str, Figure], bool],
) -> list[Difference]:  # fmt: skip
    lines: list[Difference] = []
    for label, cut in cuts.items():
        parts = {name: [cut(one) for one in found] for name, found in measured.items()}
        base = parts.pop(reference)
        lines += differences(base, parts, generator(label), wanted, label)
    return lines


def _kind(arm: Arm) -> ArmKind:
    if arm.tasks is not None:
        return ArmKind.ALONE
    kinds = {GraphControl.OFF: ArmKind.GRAPH_OFF, GraphControl.SHUFFLED: ArmKind.GRAPH_SHUFFLED}
    return kinds.get(arm.graph, ArmKind.OTHER)


def cuts_of(log: Artifact, graph: Artifact) -> dict[str, Cut]:
    """Return how to cut figures into segments: users by their train events, triples by their commonest relations."""
    return (_user_cuts(log) if log.has(prepare.EVENTS) else {}) | _relation_cuts(graph)


def _user_cuts(log: Artifact) -> dict[str, Cut]:
    events = pl.read_parquet(log.file(prepare.EVENTS)).filter(pl.col(c.PART) == c.TRAIN)
    everyone = pl.DataFrame({c.USER_ROW: pl.Series(range(int(log.facts["users"])), dtype=c.ROW_TYPE)})
    counted = everyone.join(events[c.USER_ROW].value_counts(name="events"), on=c.USER_ROW, how="left")
    counted = counted.with_columns(pl.col("events").fill_null(0)).sort(c.USER_ROW)
    known = counted.filter(pl.col("events") > 0)["events"]
    edges = sorted({int(known.quantile(share, "nearest") or 0) for share in _THIRDS})
    cuts = {"users without train events": _of_users(counted.filter(pl.col("events") == 0)[c.USER_ROW])}
    for low, high in zip([0, *edges], [*edges, None], strict=True):
        here = counted.filter((pl.col("events") > low) & (pl.lit(True) if high is None else pl.col("events") <= high))
        words = f"more than {low}" if high is None else f"{low + 1} to {high}"
        cuts[f"users with {words} train events"] = _of_users(here[c.USER_ROW])
    return cuts


def _relation_cuts(graph: Artifact) -> dict[str, Cut]:
    triples = pl.read_parquet(graph.file("triples.parquet")).filter(pl.col(c.PART) == c.TEST)
    counted = triples[c.RELATION_ROW].value_counts(name="triples")
    common = counted.sort(["triples", c.RELATION_ROW], descending=[True, False]).head(_RELATIONS)
    words = Vocabulary.load(graph.file(RELATIONS)).entries
    return {f"relation {words[row]}": _of_relation(row) for row in common[c.RELATION_ROW]}


def _of_users(users: pl.Series) -> Cut:
    return lambda one: one.of_users(users)


def _of_relation(row: int) -> Cut:
    return lambda one: one.of_relations([row])
