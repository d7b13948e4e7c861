"""Proposed links and what people said of them: a table of proposals, and verdicts in a file that only grows."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import polars as pl

from kgrec import columns as c
from kgrec.artifacts import write_atomically
from kgrec.errors import InputError, Problem, nearest

ACCEPTED: Final = "accepted"
REJECTED: Final = "rejected"
PROPOSED: Final = "proposed"
STATUSES: Final = (PROPOSED, ACCEPTED, REJECTED)
CONFIDENCE: Final = "confidence"
TAIL_IS_ITEM: Final = "tail_is_item"
STATUS: Final = "status"

PROPOSALS_SCHEMA: Final = {
    c.ID: pl.String(),
    c.SYSTEM: pl.String(),
    c.HEAD: pl.String(),
    c.RELATION: pl.String(),
    c.TAIL: pl.String(),
    c.HEAD_IS_ITEM: pl.Boolean(),
    TAIL_IS_ITEM: pl.Boolean(),
    "head_name": pl.String(),
    "relation_name": pl.String(),
    "tail_name": pl.String(),
    c.SCORE: pl.Float64(),
    CONFIDENCE: pl.Float64(),
    "model": pl.String(),
    "proposed_at": pl.String(),
}
"""One row is one link that a model thinks missing. `system` is the name of the config whose graph it is for."""


@dataclass(frozen=True)
class Verdict:
    """What a person said of a proposal. at: UTC, ISO 8601. note: why, empty where nobody said."""

    id: str
    verdict: str
    by: str
    at: str
    note: str = ""


def link_id(system: str, head: str, relation: str, tail: str) -> str:
    """Return the id of a link: the same for the same link at every time.

    >>> link_id("shop", "i1", "genre", "g1")
    'ae0558b839'
    """
    return sha256(json.dumps([system, head, relation, tail]).encode()).hexdigest()[:10]


class LinkReview:
    """The proposals and verdicts of a workspace, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._table, self._verdicts = folder / "proposals.parquet", folder / "verdicts.jsonl"

    def proposals(self) -> pl.DataFrame:
        """Return every link that was ever proposed (PROPOSALS_SCHEMA), the oldest first."""
        return pl.read_parquet(self._table) if self._table.exists() else pl.DataFrame(schema=PROPOSALS_SCHEMA)

    def verdicts(self) -> dict[str, Verdict]:
        """Return the verdict that counts, by id of the link: the latest. A line that a crash cut short is none."""
        found = {}
        for line in self._verdicts.read_text(encoding="utf-8").splitlines() if self._verdicts.exists() else ():
            try:
                verdict = Verdict(**json.loads(line))
            except (ValueError, TypeError):
                continue
            found[verdict.id] = verdict
        return found

    def listed(self, relation: str | None = None, status: str | None = None) -> pl.DataFrame:
        """Return the proposals with status, by, at and note, the most confident first; InputError for no such relation.

        relation: its id or its words.
        """
        table, verdicts = self.proposals(), self.verdicts()
        if relation is not None:
            own = (pl.col(c.RELATION) == relation) | (pl.col("relation_name") == relation)
            if table.filter(own).is_empty():
                known = table[c.RELATION].unique().to_list() + table["relation_name"].unique().to_list()
                close = nearest(relation, known)
                remedy = f"did you mean {close!r}?" if close else "see `kgrec links list`"
                raise InputError(Problem("--relation", f"no link of the relation {relation!r} is proposed", remedy))
            table = table.filter(own)
        said = [verdicts.get(one) for one in table[c.ID]]
        table = table.with_columns(
            pl.Series(STATUS, [one.verdict if one else PROPOSED for one in said], dtype=pl.String),
            *(
                pl.Series(name, [getattr(one, name, None) for one in said], dtype=pl.String)
                for name in ("by", "at", "note")
            ),
        )
        table = table if status is None else table.filter(pl.col(STATUS) == status)
        return table.sort([CONFIDENCE, c.SCORE, c.ID], descending=[True, True, False])

    def add(self, proposals: pl.DataFrame) -> int:
        """Take proposals in and return how many are new; one that was there gets its new score and confidence.

        What a person judged stays as it was judged.
        """
        judged = set(self.verdicts())
        before = self.proposals()
        fresh = proposals.filter(~pl.col(c.ID).is_in(list(judged))).unique(c.ID, keep="first", maintain_order=True)
        stays = before.filter(~pl.col(c.ID).is_in(fresh[c.ID].to_list()))
        self._write(pl.concat([stays, fresh.select(before.columns)]))
        return fresh.filter(~pl.col(c.ID).is_in(before[c.ID].to_list())).height

    def judge(
        self, ids: Sequence[str], verdict: str, by: str, note: str = "", *, change: bool = False
    ) -> list[Verdict]:
        """Write a verdict row for each link and return them; all or none.

        InputError names every id that is not proposed, with the nearest, and every link that was judged already,
        unless the verdict is to `change`.
        """
        known, before = self.proposals()[c.ID].to_list(), self.verdicts()
        problems = []
        for one in dict.fromkeys(ids):
            if one not in known:
                close = nearest(one, known)
                remedy = f"did you mean {close}?" if close else "see `kgrec links list`"
                problems.append(Problem(f"link {one}", "no link with this id is proposed", remedy))
            elif one in before and (before[one].verdict == verdict or not change):
                old = before[one]
                remedy = "nothing is to be done" if old.verdict == verdict else "to change the verdict add --change"
                problems.append(Problem(f"link {one}", f"already {old.verdict} by {old.by} on {old.at}", remedy))
        if problems:
            raise InputError(problems)
        now = datetime.now(UTC).isoformat("T", "seconds")
        rows = [Verdict(one, verdict, by, now, note) for one in dict.fromkeys(ids)]
        self._folder.mkdir(parents=True, exist_ok=True)
        cut = self._verdicts.exists() and not self._verdicts.read_bytes().endswith(b"\n")
        with self._verdicts.open("a", encoding="utf-8") as stream:
            stream.write("\n" if cut else "")
            stream.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
            stream.flush()
            os.fsync(stream.fileno())
        return rows

    def accepted(self, system: str) -> pl.DataFrame:
        """Return the accepted links of a config's graph (PROPOSALS_SCHEMA), in the order of their ids."""
        ids = [one for one, verdict in self.verdicts().items() if verdict.verdict == ACCEPTED]
        return self.proposals().filter(pl.col(c.ID).is_in(ids) & (pl.col(c.SYSTEM) == system)).sort(c.ID)

    def precision(self) -> list[dict[str, Any]]:
        """Return for each relation: proposed, accepted, rejected, precision (accepted of judged), mean confidence of
        the judged; the last two None where nothing was judged. The most often proposed first.
        """
        told: Mapping[str, pl.Expr] = {status: (pl.col(STATUS) == status).sum() for status in STATUSES}
        judged = pl.col(STATUS) != PROPOSED
        found = self.listed().group_by(c.RELATION, "relation_name", maintain_order=True).agg(
            pl.len().alias("links"), *(count.alias(status) for status, count in told.items()),
            (pl.col(STATUS).filter(judged) == ACCEPTED).mean().alias("precision"),
            pl.col(CONFIDENCE).filter(judged).mean().alias("mean_confidence"),
        )  # fmt: skip
        return found.sort(["links", c.RELATION], descending=[True, False]).to_dicts()

    def _write(self, table: pl.DataFrame) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        table.write_parquet(content)
        write_atomically(self._table, content.getvalue())
