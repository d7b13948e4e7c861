"""Time PyKEEN on the work of `link_speed.py`; print one JSON line a case. It runs in an environment that has PyKEEN.

    PYTHON benchmarks/link_speed_pykeen.py TRIPLES.parquet [--threads N] [--only CASE,...]

Cases: sampled/SCORER (128 numbers an entity, 64 negatives of each triple's own, batches of 512), one_vs_all (ComplEx,
200), filtered_evaluation/SCORER (200, both directions, realistic ranks, the first 512 triples of test). A batch is
trained once before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import torch
from pykeen.evaluation import RankBasedEvaluator
from pykeen.models import model_resolver
from pykeen.training import LCWATrainingLoop, SLCWATrainingLoop
from pykeen.triples import TriplesFactory

NEGATIVES, BATCH, SAMPLED, ALL, ASKED = 64, 512, 20_480, 10_240, 512
SCORERS = {"transe": "TransE", "complex": "ComplEx", "rotate": "RotatE"}
CASES = (
    *(f"sampled/{name}" for name in SCORERS),
    "one_vs_all",
    *(f"filtered_evaluation/{name}" for name in SCORERS),
)


def timed(work: Callable[[], Any]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


class Bench:
    """FB15k-237 as PyKEEN wants it, and its cases."""

    def __init__(self, path: str) -> None:
        table = pd.read_parquet(path).astype(str)
        entities = sorted(set(table["head"]) | set(table["tail"]))
        self.entity_ids = {name: row for row, name in enumerate(entities)}
        self.relation_ids = {name: row for row, name in enumerate(sorted(set(table["relation"])))}
        self.parts = {
            part: TriplesFactory.from_labeled_triples(
                rows[["head", "relation", "tail"]].to_numpy(),
                entity_to_id=self.entity_ids,
                relation_to_id=self.relation_ids,
            )
            for part, rows in table.groupby("split")
        }

    def first(self, part: str, count: int) -> TriplesFactory:
        """Return a random part of the triples."""
        order = torch.randperm(self.parts[part].num_triples, generator=torch.Generator().manual_seed(0))
        triples = self.parts[part].mapped_triples[order[:count]]
        return TriplesFactory(mapped_triples=triples, entity_to_id=self.entity_ids, relation_to_id=self.relation_ids)

    def model(self, scorer: str, numbers: int, loss: str) -> torch.nn.Module:
        """Return an untrained model."""
        more = {"scoring_fct_norm": 2} if scorer == "transe" else {}
        width = numbers if scorer == "transe" else numbers // 2
        return model_resolver.make(
            SCORERS[scorer], triples_factory=self.parts["train"], embedding_dim=width, loss=loss, random_seed=0, **more
        )

    def trained(self, scorer: str, numbers: int, loss: str, count: int, *, sampled: bool) -> dict[str, float]:
        """Time an epoch over some triples."""
        model = self.model(scorer, numbers, loss)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

        def epoch(factory: TriplesFactory) -> None:
            common = {"model": model, "triples_factory": factory, "optimizer": optimiser}
            if sampled:
                loop = SLCWATrainingLoop(**common, negative_sampler="basic",
                                         negative_sampler_kwargs={"num_negs_per_pos": NEGATIVES})  # fmt: skip
            else:
                loop = LCWATrainingLoop(**common)
            loop.train(triples_factory=factory, num_epochs=1, batch_size=BATCH, use_tqdm=False)

        epoch(self.first("train", BATCH))
        factory = self.first("train", count)
        figures = timed(lambda: epoch(factory))
        scored = count * (1 + NEGATIVES if sampled else len(self.entity_ids))
        return figures | {"scored_per_second": scored / figures["seconds"]}

    def evaluated(self, scorer: str) -> dict[str, float]:
        """Time the filtered evaluation of some test triples."""
        model = self.model(scorer, 200, "softplus")
        asked_T3 = self.parts["test"].mapped_triples[:ASKED]
        known = [factory.mapped_triples for factory in self.parts.values()]
        evaluator = RankBasedEvaluator(filtered=True)
        figures = timed(
            lambda: evaluator.evaluate(model, asked_T3, batch_size=64, additional_filter_triples=known, use_tqdm=False)
        )
        return figures | {"seconds_for_all": figures["seconds"] * self.parts["test"].num_triples / ASKED}


def cases(bench: Bench, wanted: list[str]) -> Iterator[tuple[str, dict[str, float]]]:
    for case in wanted:
        kind, _, scorer = case.partition("/")
        if kind == "sampled":
            loss = "softplus" if scorer == "complex" else "nssa"
            yield case, bench.trained(scorer, 128, loss, SAMPLED, sampled=True)
        elif kind == "one_vs_all":
            yield case, bench.trained("complex", 200, "crossentropy", ALL, sampled=False)
        else:
            yield case, bench.evaluated(scorer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("triples")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default=",".join(CASES))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments.triples)
    for case, figures in cases(bench, arguments.only.split(",")):
        print(json.dumps({"case": case, **figures}), flush=True)


if __name__ == "__main__":
    main()
