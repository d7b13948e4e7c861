"""What the promoted version answers to the questions of another log: the candidate's rival on equal terms."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import polars as pl
import torch
from torch import Tensor

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.context import Run
from kgrec.chain.questions import Judge
from kgrec.config import TaskName
from kgrec.data.vocabulary import Vocabulary
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.protocol import RankingQuestion, Scorer, answer, with_fallback
from kgrec.serving import versions
from kgrec.serving.package import ITEMS, USERS
from kgrec.serving.recommend import Version, open_version

PromotedLists = tuple[str, RankingQuestion, Tensor]
"""The promoted version's number, a candidate's test question, and that version's lists."""


def promoted_lists(run: Run, log: Artifact) -> PromotedLists | None:
    """Ask the promoted version the candidate's own test question; None where none of this name is promoted."""
    registry = versions.read_registry(run.workspace)
    record = registry.find(registry.promoted) if registry.promoted else None
    if record is None or record.name != run.config.name:
        return None
    champion = open_version(run.workspace.store.path("version", record.key), record.version)
    return record.version, *lists_of(run, champion, log)


def ask_ahead(run: Run, log: Artifact) -> None:
    """Let a thread ask what `promoted_lists` asks, while this one computes on; `asked` has the answer."""
    beside = ThreadPoolExecutor(1, thread_name_prefix="kgrec-asks-champion")
    run.asked_ahead[log.digest] = beside.submit(promoted_lists, run, log)
    beside.shutdown(wait=False)


def asked(run: Run, log: Artifact) -> PromotedLists | None:
    """Return `promoted_lists`, asked ahead or now."""
    ahead = run.asked_ahead.pop(log.digest, None)
    found: PromotedLists | None = promoted_lists(run, log) if ahead is None else ahead.result()
    return found


def lists_of(run: Run, version: Version, log: Artifact) -> tuple[RankingQuestion, Tensor]:
    """Return the test question of a log and the lists of a version that another log made."""
    question = Judge(run.config.evaluation, log, None, None, (TaskName.CLICK,)).question(c.TEST)
    scorer = scores_of(version, log, question.history)
    return question, answer(question, scorer, max(run.config.evaluation.k))


def scores_of(version: Version, log: Artifact, history: Pairs) -> Scorer:
    """Return another version's scores over this log's rows; an item that it does not know is never shown."""
    items, users = Vocabulary.load(log.file(ITEMS)), Vocabulary.load(log.file(USERS))
    its_rows = version.items.rows(items.entries)
    known_I = torch.tensor(its_rows.is_not_null().to_numpy())
    its_rows_I = torch.tensor(its_rows.fill_null(0).to_numpy().astype("int64"))
    popularity_I = torch.bincount(history.indices, minlength=len(items)).float().masked_fill(~known_I, float("-inf"))

    def score(rows_B: torch.Tensor) -> torch.Tensor:
        had = history.take(rows_B)
        ids = users.ids(pl.Series(rows_B.numpy()))
        bounds = had.indptr.tolist()
        histories = {
            user: its_rows_I[had.indices[start:end]][known_I[had.indices[start:end]]].numpy()
            for user, start, end in zip(ids, bounds[:-1], bounds[1:], strict=True)
        }
        scores_BI = torch.from_numpy(version.scores_of(ids, histories))[:, its_rows_I]
        blank_B = scores_BI.abs().sum(1) == 0
        scores_BI[blank_B] = popularity_I
        return scores_BI.masked_fill(~known_I, float("-inf"))

    return with_fallback(score, history, popularity_I)
