"""A stored version asked the test question of a config's data, which may be younger than the version.

Axes: B users asked, K places.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.champion import lists_of
from kgrec.chain.context import Run
from kgrec.chain.prepare import EVENTS, ingest, split
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import InputError, Problem
from kgrec.evaluation.protocol import RankingQuestion, judge_ranking
from kgrec.serving.package import ITEMS, USERS
from kgrec.serving.recommend import open_version
from kgrec.serving.versions import VersionRecord


def judge_stored(run: Run, record: VersionRecord) -> dict[str, Any]:
    """Return the version's ranking figures on the test part that the config's split makes, and what it was told of it.

    The question is the one that the config's own model would get: same users, candidates and histories. An item that
    the version does not know is never in its lists. num_pairs_trained_on: relevant pairs that the version's training
    part named, so that a figure with any is no test; absent where its training part is gone. InputError without a log.
    """
    log = split(run, ingest(run))
    if not log.has(EVENTS):
        raise InputError(Problem(run.loaded.source, "no interactions", "name a log under [interactions]"))
    version = open_version(run.workspace.store.path("version", record.key), record.version)
    question, top_BK = lists_of(run, version, log)
    answer: dict[str, Any] = {
        "version": record.version,
        "metrics": {c.TEST: judge_ranking(question, top_BK, run.config.evaluation)},
    }
    trained = run.workspace.store.with_digest("split", version.artifact.inputs["split"])
    if trained is not None:
        answer["num_pairs_trained_on"] = _told(trained, log, question)
    return answer


def _told(trained: Artifact, log: Artifact, question: RankingQuestion) -> int:
    """Return how many relevant pairs the train part of another log names."""
    users, items = question.users_B[question.truth.rows()], question.truth.indices
    asked = _named(log, pl.DataFrame({c.USER_ROW: users.numpy(), c.ITEM_ROW: items.numpy()}))
    events = pl.read_parquet(trained.file(EVENTS)).filter(pl.col(c.PART) == c.TRAIN)
    return asked.join(_named(trained, events).unique(), on=[c.USER, c.ITEM], how="semi").height


def _named(log: Artifact, rows: pl.DataFrame) -> pl.DataFrame:
    users, items = Vocabulary.load(log.file(USERS)), Vocabulary.load(log.file(ITEMS))
    return rows.select(users.ids(rows[c.USER_ROW]).alias(c.USER), items.ids(rows[c.ITEM_ROW]).alias(c.ITEM))
