"""The kept test figures by unit, read back; and how sure the figures of one run are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain import judge
from kgrec.chain.answers import MODEL
from kgrec.evaluation.compare import Measured, Outcome, corrected, differences, levels
from kgrec.seeds import numpy_generator


def measured_of(evaluated: Artifact, system: str = MODEL) -> Measured:
    """Return the test figures by unit of the model, or of a baseline (ranking alone)."""

    def read(name: str, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        return pl.read_parquet(evaluated.file(name)) if evaluated.has(name) else pl.DataFrame(schema=dict(schema))

    users = read(judge.PER_USER, c.PER_USER_SCHEMA).filter(pl.col(c.SYSTEM) == system)
    rows, triples = read(judge.PER_ROW, c.PER_ROW_SCHEMA), read(judge.PER_TRIPLE, c.PER_TRIPLE_SCHEMA)
    return Measured(users, rows, triples) if system == MODEL else Measured(users, rows.clear(), triples.clear())


def ranking_intervals(evaluated: Artifact, seed: int) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval over users of the model's recall, NDCG and MRR on test; empty where it does not rank."""
    measured = measured_of(evaluated)
    generator = numpy_generator(seed, "report", "intervals")
    found: Mapping[str, Any] = levels([measured], generator, lambda group: group == "ranking").get("ranking", {})
    return {metric: tuple(level["interval"]) for metric, level in found.items() if metric != "num_units"}


def against_baselines(evaluated: Artifact, names: Sequence[str], metric: str, seed: int) -> dict[str, dict[str, Any]]:
    """Return by baseline the paired test of the model in one ranking metric: p (Holm over the baselines) and noise."""
    rivals = {name: [measured_of(evaluated, name)] for name in names}
    generator = numpy_generator(seed, "report", "baselines")
    wanted = ("ranking", metric)
    lines = corrected(differences([measured_of(evaluated)], rivals, generator, lambda arm, figure: figure == wanted))
    return {line.arm: {"metric": metric, "p": line.p_holm, "noise": line.outcome is Outcome.NOISE} for line in lines}
