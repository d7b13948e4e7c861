"""What a model is asked on validation and on test: ranking, labelled rows, held-out triples. Same code for both.

Axes: U users, I items, B users asked, N labelled rows, D dimensions, T triples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import polars as pl
import torch
from torch import Tensor

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.answers import Answers, Predictions
from kgrec.chain.prepare import EVENTS, catalogue_mask
from kgrec.chain.tensors import exposures, users_of_train
from kgrec.config import TaskName
from kgrec.evaluation.classification import FloatArray, auc, funnel_rows
from kgrec.evaluation.link_prediction import link_ranks, summarise_ranks
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.protocol import RankingQuestion, Scorer, answer, ask, judge_ranking, with_fallback
from kgrec.evaluation.ranking import EvaluationConfig
from kgrec.model.network import Encoded, Network, placed_users
from kgrec.serving.neighbours import Neighbours
from kgrec.training.exposures import Exposures

Vectors = Mapping[str, Tensor]
ROWS_AT_ONCE: Final = 262_144  # of the labelled rows that towers are asked about


def exported_vectors(network: Network) -> dict[str, Tensor]:
    """Return the vectors of a network by the names under which they are kept."""
    exported = network.export()
    own = {} if exported.user_own_UD is None else {"user_own_UD": exported.user_own_UD.contiguous()}
    return own | {
        "user_vectors_UD": exported.user_vectors_UD.contiguous(),
        "item_vectors_ID": exported.item_vectors_ID.contiguous(),
        "item_fold_ID": exported.item_fold_ID.contiguous(),
    }


def in_pieces(rows: Exposures) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield user, item, numeric and categorical columns of ROWS_AT_ONCE rows after the other."""
    for start in range(0, len(rows.user_N), ROWS_AT_ONCE):
        row_B = torch.arange(start, min(start + ROWS_AT_ONCE, len(rows.user_N)))
        yield rows.user_N[row_B], rows.item_N[row_B], rows.numeric_NF[row_B], rows.categorical_NC[row_B]


class Judge:
    """Asks a network the questions of one part after the other; what the data cannot answer is left out."""

    def __init__(
        self,
        config: EvaluationConfig,
        log: Artifact,
        features: Artifact | None,
        graph: Artifact | None,
        tasks: tuple[TaskName, ...],
    ) -> None:
        self.config = config
        self._log, self._features, self._tasks = log, features, tasks
        self._triples = (
            pl.read_parquet(graph.file("triples.parquet")) if TaskName.KG in tasks and graph is not None else None
        )
        self._ranks = log.has(EVENTS) and bool({TaskName.CLICK, TaskName.CONVERSION} & set(tasks))
        self._questions: dict[str, RankingQuestion] = {}
        self._rows: dict[str, Exposures | None] = {}
        if self._ranks:
            events = pl.read_parquet(log.file(EVENTS))
            self._events = events
            self._trained_U = users_of_train(log)

    def question(self, part: str) -> RankingQuestion:
        """Return the ranking question of a part."""
        if part not in self._questions:
            catalogue_I = torch.as_tensor(catalogue_mask(self._log))
            self._questions[part] = ask(self._events, part, self.config, catalogue_I, int(self._log.facts["users"]))
        return self._questions[part]

    @property
    def asks_ranking(self) -> bool:
        """Whether this run ranks at all."""
        return self._ranks

    def scorer(self, vectors: Vectors, part: str) -> Scorer:
        """Return what the service would score: vectors, folded-in histories, neighbours; popularity for the rest."""
        question = self.question(part)
        users_UD = self.user_vectors(vectors, question.history)
        items_DI = vectors["item_vectors_ID"].T
        popularity_I = torch.bincount(question.history.indices, minlength=items_DI.shape[1]).float()
        has_vector_U = users_UD.abs().sum(1) > 0
        known = Pairs.of(has_vector_U.nonzero()[:, 0], has_vector_U.nonzero()[:, 0] * 0, len(users_UD), 1)
        near = Neighbours.read(vectors)

        def score(rows_B: Tensor) -> Tensor:
            trained_BI = (users_UD[rows_B] @ items_DI).numpy()
            return torch.from_numpy(near.scores(question.history.take(rows_B), trained_BI))

        return with_fallback(score, known, popularity_I)

    def user_vectors(self, vectors: Vectors, history: Pairs) -> Tensor:
        """Return one vector per user: the trained one, moved by the history since; of others the history alone."""
        fold_ID = vectors["item_fold_ID"]
        sums_UD = torch.zeros(history.num_rows, fold_ID.shape[1])
        sums_UD.index_add_(0, history.rows(), fold_ID[history.indices])
        own_UD = vectors.get("user_own_UD", torch.zeros_like(sums_UD)) * self._trained_U[:, None]
        users_UD = placed_users(own_UD, sums_UD, history.counts())
        if "user_own_UD" not in vectors:
            users_UD[self._trained_U] = vectors["user_vectors_UD"][self._trained_U, : fold_ID.shape[1]]
        if "block_widths" in vectors:  # the constant that popularity is multiplied by
            known_U1 = (users_UD.abs().sum(dim=1, keepdim=True) > 0).to(users_UD.dtype)
            users_UD = torch.cat([users_UD, known_U1], dim=1)
        return users_UD

    def evaluate(self, network: Network, vectors: Vectors, part: str) -> dict[str, Any]:
        """Return all figures of a part in the shape of contract part 4."""
        return self.answers(network, vectors, part).figures()

    def answers(self, network: Network, vectors: Vectors, part: str) -> Answers:
        """Return what the network answers to the questions of a part."""
        question = self.question(part) if self._ranks else None
        top_BK = answer(question, self.scorer(vectors, part), max(self.config.k)) if question is not None else None
        triples_T3, ranks_T2 = self._links(network, part) if self._triples is not None else (None, None)
        predictions = self.predictions(network, vectors, part)
        return Answers(self.config, question, top_BK, predictions, triples_T3, ranks_T2)

    def ranking(self, vectors: Vectors) -> dict[str, float]:
        """Return the ranking figures on validation; empty where this run does not rank."""
        if not self._ranks:
            return {}
        question = self.question(c.VALIDATION)
        top_BK = answer(question, self.scorer(vectors, c.VALIDATION), max(self.config.k))
        return judge_ranking(question, top_BK, self.config).get("ranking", {})

    def objective(self, network: Network) -> dict[str, float]:
        """Return validation figures and their "objective", larger is better: what chooses the epoch.

        The objective is NDCG at the first k plus the mean AUC of the towers; link MRR where there is neither.
        """
        vectors = exported_vectors(network)
        figures: dict[str, float] = {}
        parts: list[float] = []
        k = self.config.k[0]
        figures |= {name: value for name, value in self.ranking(vectors).items() if name.endswith(f"@{k}")}
        parts += [figures[f"ndcg@{k}"]] if f"ndcg@{k}" in figures else []
        areas = {
            f"{name}_auc": area
            for name, found in self.predictions(network, vectors, c.VALIDATION).items()
            if (area := auc(found.probability_N, found.label_N)) is not None
        }
        figures |= areas
        parts += [sum(areas.values()) / len(areas)] if areas else []
        if not parts and self._triples is not None:
            link = summarise_ranks(self._links(network, c.VALIDATION)[1])
            figures |= {f"link_{name}": value for name, value in link.items() if name != "num_triples"}
            parts += [link["mrr"]] if "mrr" in link else []
        return figures | {"objective": sum(parts)}

    def labelled_rows(self, part: str) -> Exposures | None:
        """Return the rows of a part that the towers are judged on, None where there is none."""
        if part not in self._rows:
            features = self._features
            self._rows[part] = exposures(self._log, features, part, self._tasks) if features is not None else None
        rows = self._rows[part]
        return rows if rows is not None and len(rows.user_N) else None

    def encoded(self, network: Network, vectors: Vectors, part: str) -> Encoded:
        """Return the shared vectors as the towers read them in a part: trained dimensions, newcomers folded in."""
        users_UD = (
            self.user_vectors(vectors, self.question(part).history) if self._ranks else vectors["user_vectors_UD"]
        )
        trained = slice(int(vectors["block_widths"][0]) if "block_widths" in vectors else None)
        return Encoded(users_UD[:, trained], vectors["item_vectors_ID"][:, trained], network.item_rows())

    def predictions(self, network: Network, vectors: Vectors, part: str) -> dict[str, Predictions]:
        """Return what the towers say of the labelled rows of a part, by label; empty where there are none."""
        rows = self.labelled_rows(part)
        if network.towers is None or rows is None:
            return {}
        return self.predicted(network, self.encoded(network, vectors, part), rows)

    def predicted(self, network: Network, encoded: Encoded, rows: Exposures) -> dict[str, Predictions]:
        """Return what the towers say of labelled rows, by label."""
        found: dict[str, list[Tensor]] = {}
        with torch.no_grad():
            for some in in_pieces(rows):
                for name, values in network.predict(*some, encoded).items():
                    found.setdefault(name, []).append(values)
        chance = {name: torch.cat(parts).double().clamp(0, 1).numpy() for name, parts in found.items()}
        if "click" in chance and "conversion" in chance and rows.click_N is not None and rows.conversion_N is not None:
            funnel = funnel_rows(chance["click"], chance["conversion"], rows.click_N, rows.conversion_N)
            user_N = rows.user_N.numpy()
            return {name: Predictions(user_N[mask_N], *judged) for name, (mask_N, *judged) in funnel.items()}
        labels = {"click": rows.click_N, "conversion": rows.conversion_N}
        return {
            name: Predictions(rows.user_N.numpy(), values, label_N.double().numpy())
            for name, values in chance.items()
            if (label_N := labels.get(name)) is not None
        }

    def _links(self, network: Network, part: str) -> tuple[Tensor, FloatArray]:
        assert self._triples is not None  # noqa: S101  callers asked
        columns = (c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW)
        known_K3 = torch.tensor(self._triples.select(columns).to_numpy(), dtype=torch.int64).reshape(-1, 3)
        asked_T3 = known_K3[torch.tensor((self._triples[c.PART] == part).to_numpy())]
        with torch.no_grad():
            return asked_T3, link_ranks(
                network.score_tails, network.score_heads, asked_T3, known_K3, network.shape.num_entities
            )
