"""A version that answers: top items for users, nearest items, and the reasons.

Axes: D dimensions, H items of a history.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from kgrec import columns as c
from kgrec.artifacts import Artifact, load_artifact
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import InputError, Problem, nearest
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.ranking import ExcludeSeen
from kgrec.graph.paths import PathFinder
from kgrec.serving import package
from kgrec.serving.explain import Explainer, ServedScore
from kgrec.serving.explained import explained
from kgrec.serving.index import Floats, IndexConfig, ItemIndex, Rows
from kgrec.serving.neighbours import Neighbours
from kgrec.serving.placing import Placing
from kgrec.serving.score import TowerScorer
from kgrec.serving.search import best_items
from kgrec.serving.smaller import unpacked
from kgrec.serving.standing import Asked, Standing
from kgrec.serving.stored import read_tensors
from kgrec.serving.versions import promoted, read_registry, require
from kgrec.workspace import Workspace

_ANSWER: Final = {c.USER: pl.String, c.ITEM: pl.String, c.TITLE: pl.String, c.SCORE: pl.Float64}
logger = logging.getLogger(__name__)


class Version:
    """A loaded version. `number` is its name in the registry, empty for a folder that was loaded by itself."""

    def __init__(self, artifact: Artifact, number: str = "") -> None:
        self.number = number
        self.artifact = artifact
        self.items = Vocabulary.load(artifact.file(package.ITEMS))
        self.users = Vocabulary.load(artifact.file(package.USERS))
        expected = {"item vocabulary": self.items.digest, "model": artifact.files[package.VECTORS]}
        self._index = ItemIndex(artifact, IndexConfig(**artifact.facts["index"]), expected)
        vectors = unpacked(read_tensors(artifact.file(package.VECTORS)))
        self.user_vectors_UD: Floats = vectors["user_vectors_UD"]
        self.item_vectors_ID: Floats = vectors["item_vectors_ID"]
        self._item_fold_ID: Floats = vectors["item_fold_ID"]
        self.neighbours = Neighbours.read(vectors)
        self._trained = slice(0, self._item_fold_ID.shape[1])
        self._placing = Placing(vectors, read_tensors(artifact.file(package.TRAINED_USERS))["trained_U"])
        catalogue = pl.read_parquet(artifact.file(package.CATALOGUE)).sort(c.ITEM_ROW)
        self.titles: dict[int, str | None] = dict(catalogue.select(c.ITEM_ROW, c.TITLE).iter_rows())
        by_popularity = catalogue.sort([package.POPULARITY, c.ITEM_ROW], descending=[True, False])
        self._popular_rows: Rows = by_popularity[c.ITEM_ROW].to_numpy().astype(np.int64)
        self._popular_shares: Floats = by_popularity[package.POPULARITY].to_numpy()
        history = pl.read_parquet(artifact.file(package.HISTORY)).sort(c.USER_ROW, maintain_order=True)
        self._history_items: Rows = history[c.ITEM_ROW].to_numpy().astype(np.int64)
        self._history_seen: npt.NDArray[np.bool_] = history[package.SEEN].to_numpy()
        self._history_offsets = np.searchsorted(history[c.USER_ROW].to_numpy(), np.arange(len(self.users) + 1))

    def recommend(self, users: Sequence[object], k: int = 10, *, explain: bool = False) -> pl.DataFrame:
        """Return the top k items of each user: user, item, title, score and, on demand, reason; best first.

        Items that the user had are left out. A user without a trained vector is placed by their history; one whom the
        version does not know gets what is most popular, and a log line says so (`standing` tells it beforehand).
        score: the cosine of the trained vectors in [-1, 1] plus the parts that earned a weight on validation (item
        neighbours, log popularity, what the user had); in a fallback to popularity, the share of users who had it.
        """
        _positive(k)
        rows: list[tuple[str, str, str | None, float]] = []
        reasons: list[str] = []
        for user in map(_as_id, users):
            asked = self.ask(user)
            found, scores = self.top(asked, k)
            ids = self.items.ids(pl.Series(found)).to_list()
            rows += [
                (user, item, self.titles.get(int(row)), float(score))
                for item, row, score in zip(ids, found, scores, strict=True)
            ]
            if explain:
                reasons += self.reasons(asked, found, scores)
        answer = pl.DataFrame(rows, schema=_ANSWER, orient="row")
        return answer.with_columns(pl.Series(c.REASON, reasons, dtype=pl.String)) if explain else answer

    def similar(self, items: Sequence[object], k: int = 10) -> pl.DataFrame:
        """Return the k nearest items of each item by cosine, itself left out: item, neighbour, title, score.

        InputError names every item that the version does not know, with the nearest id.
        """
        _positive(k)
        ids = [_as_id(item) for item in items]
        rows = [self.item_rows.get(item) for item in ids]
        unknown = [item for item, row in zip(ids, rows, strict=True) if row is None or self._index.vector(row) is None]
        if unknown:
            raise InputError([self.unknown_item(item) for item in unknown])
        answers: list[tuple[str, str, str | None, float]] = []
        for item in ids:
            found, scores = self.near(self.item_rows[item], k)
            names = self.items.ids(pl.Series(found)).to_list()
            answers += [
                (item, name, self.titles.get(int(row)), float(score))
                for name, row, score in zip(names, found, scores, strict=True)
            ]
        schema = {c.ITEM: pl.String, "neighbour": pl.String, c.TITLE: pl.String, c.SCORE: pl.Float64}
        return pl.DataFrame(answers, schema=schema, orient="row")

    def score(self, requests: pl.DataFrame) -> pl.DataFrame:
        """Return click, conversion (given a click) and both for each row of user, item and context columns.

        As far as the version learned them; see `kgrec.serving.score`. InputError when it learned none of them, or when
        a declared context column is missing.
        """
        return self._towers.score(requests)

    def standing(self, user: object) -> Standing:
        """Say what an answer to this user rests on: a trained vector, their history, or popularity."""
        return self.ask(_as_id(user)).standing

    def history(self, user: object) -> pl.DataFrame:
        """Return what the version knows the user had, oldest first: item, title."""
        rows = self.ask(_as_id(user)).history_H
        titles = [self.titles.get(int(row)) for row in rows]
        return pl.DataFrame({c.ITEM: self.items.ids(pl.Series(rows)), c.TITLE: pl.Series(titles, dtype=pl.String)})

    def title_of(self, item: object) -> str:
        """Return the title of an item by its id, or the id where it has none or is unknown."""
        row = self.item_rows.get(_as_id(item))
        return _as_id(item) if row is None else self.title(row)

    def title(self, item_row: int) -> str:
        """Return an item's title, or its id where it has none."""
        return self.titles.get(item_row) or str(self.items.entries[item_row])

    def reasons(self, asked: Asked, items_K: Rows, scores_K: Floats) -> list[str]:
        """Return why each item of a list, at most 100 characters each, as far as can be not all the same."""
        return [one.reason for one in self.explainer.explain(asked, items_K, scores_K.tolist())]

    def explain(self, user: object, item: object) -> dict[str, Any]:
        """Return why an item has its score (see `kgrec.serving.explained`); InputError for no item of the catalogue."""
        row = self.item_rows.get(_as_id(item))
        if row is None or self._index.vector(row) is None:
            raise InputError(self.unknown_item(_as_id(item)))
        return explained(self, _as_id(user), row)

    def scores_of(self, users: pl.Series, histories: Mapping[str, Rows]) -> Floats:
        """Return the scores of all item rows, (B, I), of user ids with these histories; zeros for a stranger."""
        vectors_BW = np.zeros((len(users), self._index.dimensions), dtype=np.float32)
        had = [np.asarray(histories.get(user, ()), dtype=np.int64) for user in users]
        for place, row in enumerate(self.users.rows(users)):
            if (vector_W := self._placing.vector(row, had[place])) is not None:
                vectors_BW[place] = vector_W
        rows_N = np.repeat(np.arange(len(users)), [len(items_H) for items_H in had])
        pairs = Pairs.of(rows_N, np.concatenate([*had, np.empty(0, np.int64)]), len(users), len(self.items))
        items_WI = torch.from_numpy(self.item_vectors_ID).T  # multiplied as evaluation does: equal items stay equal
        trained_BI = torch.from_numpy(vectors_BW) @ items_WI
        return self.neighbours.scores(pairs, trained_BI.numpy())

    @cached_property
    def _towers(self) -> TowerScorer:
        users_UD = torch.from_numpy((self.user_vectors_UD * self._placing.trained_U[:, None])[:, self._trained])
        items_ID = torch.from_numpy(self.item_vectors_ID[:, self._trained])
        return TowerScorer(self.artifact, self.users, self.items, users_UD, items_ID)

    @cached_property
    def explainer(self) -> Explainer:
        """What tells why an item has its score."""
        served = ServedScore(self.item_vectors_ID, self._item_fold_ID, self._trained.stop, self.neighbours)
        with_graph = self.artifact.facts.get(package.GRAPH_IN_SCORES, True)
        own = weakref.proxy(self)  # no circle: a version that is served no more is freed at once
        return Explainer(served, (lambda: own.paths) if with_graph else None, lambda row: own.title(row))  # noqa: PLW0108  its method would hold it

    @cached_property
    def paths(self) -> PathFinder:
        """What finds the ways between items in the graph."""
        triples = pl.read_parquet(self.artifact.file(package.GRAPH_TRIPLES))
        nodes = pl.read_parquet(self.artifact.file(package.GRAPH_NODES))
        relations = Vocabulary.load(self.artifact.file(package.RELATIONS))
        return PathFinder(triples, nodes, relations.entries.to_list())

    @cached_property
    def user_rows(self) -> dict[str, int]:
        """The row of every user id."""
        return {user: row for row, user in enumerate(self.users.entries)}

    @cached_property
    def item_rows(self) -> dict[str, int]:
        """The row of every item id, whether it is in the catalogue or not."""
        return {item: row for row, item in enumerate(self.items.entries)}

    @property
    def catalogue_rows(self) -> Rows:
        """The rows of the items that can be recommended, growing."""
        return self._index.rows_I

    def ask(self, user: str) -> Asked:
        """Return what the version knows of a user id, stripped of blanks."""
        row = self.user_rows.get(user)
        nothing = np.empty(0, dtype=np.int64)
        if row is None:
            return Asked(Standing.POPULARITY, None, nothing, nothing)
        history_H = self._history_of(row)
        window = slice(self._history_offsets[row], self._history_offsets[row + 1])
        seen = history_H[self._history_seen[window]]
        if (vector_W := self._placing.vector(row, history_H)) is None:
            return Asked(Standing.POPULARITY, None, history_H, seen)
        standing = Standing.TRAINED if self._placing.trained_U[row] else Standing.HISTORY
        return Asked(standing, vector_W, history_H, seen)

    def ask_history(self, history_H: Rows) -> Asked:
        """Return a stranger as their history (item rows, oldest first) places them; what they had is not shown.

        With `evaluation.exclude_seen = "none"` it may be.
        """
        nothing = np.empty(0, dtype=np.int64)
        seen = nothing if self.artifact.config.get("exclude_seen") == ExcludeSeen.NONE else np.unique(history_H)
        vector_W = self._placing.vector(None, history_H)
        return Asked(Standing.HISTORY if vector_W is not None else Standing.POPULARITY, vector_W, history_H, seen)

    def _history_of(self, row: int) -> Rows:
        return self._history_items[self._history_offsets[row] : self._history_offsets[row + 1]]

    def top(
        self, asked: Asked, k: int, leave_out: Rows | None = None, only_I: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Rows, Floats]:
        """Return up to k item rows and their scores, best first, without what the user had.

        leave_out: more item rows that must not be among them. only_I: a flag per item row, None for all of them.
        """
        out = asked.seen if leave_out is None else np.union1d(asked.seen, leave_out)
        if asked.vector_D is not None:
            items_IW, near = self.item_vectors_ID, self.neighbours
            return best_items(self._index, items_IW, near, asked.vector_D, asked.history_H, out, k, only_I)
        logger.info("a user without history: answered with what is most popular")
        keep = ~np.isin(self._popular_rows, out)
        if only_I is not None:
            keep &= only_I[self._popular_rows]
        return self._popular_rows[keep][:k], self._popular_shares[keep][:k]

    def near(self, item_row: int, k: int, only_I: npt.NDArray[np.bool_] | None = None) -> tuple[Rows, Floats]:
        """Return the k nearest item rows by cosine and their scores; InputError when the item is not in the index."""
        query_W = self._index.vector(item_row)
        if query_W is None:
            raise InputError(self.unknown_item(str(self.items.entries[item_row])))
        query_W = query_W.copy()
        query_W[self._trained.stop :] = 0  # nearness is the trained cosine alone, not popularity
        return self._index.search(query_W, k, np.array([item_row], dtype=np.int64), only_I)

    def score_of(self, item_row: int, asked: Asked) -> float:
        """Return the score that an item has for a user, wherever in the list it would stand."""
        if asked.vector_D is None:
            return float(self._popular_shares[self._popular_rows == item_row].sum())
        return sum(self.explainer.parts(asked, item_row).values())

    def unknown_item(self, item: str) -> Problem:
        """Return what is wrong with an item id that is not in the catalogue, with the nearest that is."""
        catalogue = self.items.ids(pl.Series(self._index.rows_I[:100_000]))
        guess = nearest(item, catalogue.to_list())
        remedy = f"did you mean {guess}?" if guess else "name an item of the catalogue"
        return Problem(f"item {item}", "not in the catalogue of this version", remedy)


def open_version(folder: Path, number: str = "", *, verify: bool = True) -> Version:
    """Load a version from its folder; ArtifactError names what is damaged or does not fit.

    verify: check every byte, as should be unless this process has just done so.
    """
    return Version(load_artifact(folder, "version", verify=verify), number)


def load(workspace: str | Path = "workspace", version: str | None = None) -> Version:
    """Load the promoted version of a workspace, or the named one. InputError when there is none."""
    place = Workspace(workspace, must_exist=True)
    record = promoted(place) if version is None else require(read_registry(place), str(version))
    return open_version(place.store.path("version", record.key), record.version)


def _as_id(value: object) -> str:
    return str(value).strip()


def _positive(k: int) -> None:
    if k < 1:
        raise InputError(Problem("k", f"a list of {k} items", "ask for 1 or more", example=str(k)))
