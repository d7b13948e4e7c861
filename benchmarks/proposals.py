"""Missing links on MovieLens-100k: found again, trusted, and worth something? Prints one JSON object.

    python benchmarks/proposals.py [--epochs 4] [--most 1000]

The graph is that of configs/ml-100k.toml, Freebase with genres and years, in one table of triples. A tenth of the
unordered pairs of its nodes is taken out of the data, whatever relations and directions join them, so that no inverse
gives one away. The chain, one setting a baseline, runs on the rest (another tenth held out for choosing and for the
confidence) and is asked: the filtered rank of the tails and heads of what was taken out; its most confident proposals,
how many of them were among what was taken out, and how many the confidence had promised (with the standard deviation
that independent links of these chances would have). Then a person who knows the truth judges all of them (`kgrec links
accept`, `reject`), the chain runs again in the same workspace, and the test users' NDCG@10 of both runs are compared in
pairs. As a control, all that was taken out is put back, whether proposed or not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.answers import MODEL
from kgrec.chain.completing import is_among, propose_links
from kgrec.chain.context import Run
from kgrec.chain.judge import PER_USER
from kgrec.chain.learn import load_network
from kgrec.config import load_config
from kgrec.data.datasets import get_dataset
from kgrec.data.vocabulary import Vocabulary
from kgrec.evaluation.link_prediction import link_metrics
from kgrec.evaluation.significance import mean_of, randomisation_test
from kgrec.graph.completion import precision
from kgrec.graph.review import ACCEPTED, CONFIDENCE, REJECTED, LinkReview
from kgrec.serving.package import RELATIONS
from kgrec.stages import run_chain
from kgrec.workspace import Workspace

CONFIG = Path(__file__).parents[1] / "configs" / "ml-100k.toml"
QUICKER = (
    "knowledge.validation=0.1", "knowledge.test=0.0", "knowledge.tables=[]",
    "baselines.neighbours=[100]", "baselines.shrinkage=[10.0]", "baselines.ease_lambda=[300.0]",
    "baselines.ials_regularisation=[10.0]", "baselines.ials_alpha=[1.0]", "baselines.filter_exponents=[0.5]",
    "baselines.half_lives=[0.0]", "baselines.hub_exponents=[0.5]", "baselines.kernel_popularity=[0.1]",
)  # fmt: skip


def whole_graph(data: Path, links: dict[str, str]) -> pl.DataFrame:
    """Freebase's triples, and genres and years of the films that have an entity, as the config makes them of cells."""
    text = {"separator": "\t", "infer_schema": False, "quote_char": None}
    films = pl.read_csv(data / "items.tsv", **text).with_columns(
        pl.col("item").replace_strict(links, default=None, return_dtype=pl.String).alias("head")
    )
    cells = [
        films.select("head", pl.lit(name).alias("relation"), values.alias("tail")).explode("tail").drop_nulls()
        for name, values in (("genres", pl.col("genres").str.split(" ")),
                             ("release_year", pl.concat_list("release_year")))
    ]  # fmt: skip
    named = [one.filter(pl.col("tail") != "").with_columns(pl.format("{}:{}", "relation", "tail").alias("tail"))
             for one in cells]  # fmt: skip
    return pl.concat([pl.read_csv(data / "triples.tsv", **text), *named]).unique(maintain_order=True)


def parted(triples: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the triples that stay and those whose pair of nodes goes."""
    low, high = pl.min_horizontal("head", "tail").alias("low"), pl.max_horizontal("head", "tail").alias("high")
    pairs = triples.select(low, high).unique(maintain_order=True)
    gone = pairs.filter(pl.Series(np.random.default_rng(seed).random(pairs.height) < 0.1))
    both = triples.with_columns(low, high)
    return tuple(both.join(gone, on=["low", "high"], how=how).drop("low", "high") for how in ("anti", "semi"))  # type: ignore[return-value]


def chain(workspace: Workspace, path: Path, overrides: list[str]) -> dict[str, Artifact]:
    made: dict[str, Artifact] = {}

    def call(stage: str, function: Any, *arguments: Any) -> Any:
        made[stage] = function(*arguments)
        return made[stage]

    with workspace.hold("proposals"):
        loaded = load_config(CONFIG, [f'knowledge.triples=["{path}"]', *overrides])
        run_chain(Run(loaded, workspace), call, until="evaluate")
    return made


def judge(workspace: Workspace, table: pl.DataFrame, is_true: pl.Series) -> int:
    """Accept what is true, reject the rest; return how many were accepted."""
    review = LinkReview(workspace.links)
    for verdict, ids in ((ACCEPTED, table.filter(is_true)[c.ID]), (REJECTED, table.filter(~is_true)[c.ID])):
        if len(ids):
            review.judge(ids.to_list(), verdict, "benchmark")
    return int(is_true.sum())


def promised(confidence: np.ndarray, is_true: torch.Tensor, most: int) -> dict[str, float]:
    """Precision and mean confidence of the most confident; links found, promised, and the latter's deviation."""
    order = np.argsort(-confidence, kind="stable")[:most]
    chances = confidence[order]
    deviation = float(np.sqrt((chances * (1 - chances)).sum()))
    return precision(confidence, is_true, most) | {
        "found": int(is_true.numpy()[order].sum()), "promised": round(float(chances.sum()), 1),
        "deviation": round(deviation, 1),
    }  # fmt: skip


def in_rows(triples: pl.DataFrame, graph: Artifact, links: dict[str, str]) -> torch.Tensor:
    """The triples as rows of a built graph, those whose ends it knows."""
    nodes = pl.read_parquet(graph.file("nodes.parquet"))[c.ID].to_list()
    items = int(graph.facts["items"])
    row = {links.get(name, name) if at < items else name: at for at, name in enumerate(nodes)}
    relation = {name: at for at, name in enumerate(Vocabulary.load(graph.file(RELATIONS)).entries)}
    found = [(row[h], relation[r], row[t]) for h, r, t in triples.rows() if h in row and t in row and r in relation]
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 3)


def ndcg(evaluated: Artifact) -> pl.DataFrame:
    table = pl.read_parquet(evaluated.file(PER_USER))
    own = (pl.col(c.GROUP) == "ranking") & (pl.col(c.SYSTEM) == MODEL)
    return table.filter(own).select(c.USER_ROW, "ndcg@10").sort(c.USER_ROW)


def compared(first: Artifact, second: Artifact) -> dict[str, float]:
    both = ndcg(first).join(ndcg(second), on=c.USER_ROW, suffix="_then")
    before, then = (both[name].to_numpy() for name in ("ndcg@10", "ndcg@10_then"))
    (p,) = randomisation_test([mean_of(then - before)], np.random.default_rng(7))
    verdict = "no more than noise" if p >= 0.05 else "raised" if then.mean() > before.mean() else "lowered"
    return {"users": both.height, "without": round(float(before.mean()), 5), "with": round(float(then.mean()), 5),
            "p": round(p, 4), "ndcg@10": verdict}  # fmt: skip


def _so_far(found: dict[str, Any]) -> None:
    print(json.dumps(found), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--most", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    data = get_dataset("ml-100k", lambda _: None)
    links = dict(
        pl.read_csv(data / "item_entity.tsv", separator="\t", infer_schema=False).select("item", "entity").rows()
    )
    whole = whole_graph(data, links)
    stays, gone = parted(whole, arguments.seed)
    overrides = [*QUICKER, f"training.epochs={arguments.epochs}", f"seed={arguments.seed}"]
    with tempfile.TemporaryDirectory() as spare:
        folder = Path(spare)
        stays.write_csv(folder / "stays.tsv", separator="\t")
        pl.concat([stays, gone.select(stays.columns)]).write_csv(folder / "whole.tsv", separator="\t")
        workspace = Workspace(folder / "proposals")
        made = chain(workspace, folder / "stays.tsv", overrides)
        graph, (network, _) = made["graph"], load_network(made["train"])
        taken_T3 = in_rows(gone, graph, links)
        rows = pl.read_parquet(graph.file("triples.parquet")).select(c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW)
        known_K3 = torch.tensor(rows.to_numpy().astype(np.int64))
        found: dict[str, Any] = {"epochs": arguments.epochs, "triples": whole.height, "taken_out": gone.height,
                                 "of_entities_that_are_left": len(taken_T3)}  # fmt: skip
        with torch.no_grad():
            found["link"] = link_metrics(network.score_tails, network.score_heads, taken_T3,
                                         torch.cat([taken_T3, known_K3]), int(graph.facts["entities"]))  # fmt: skip
        found["link"]["mrr_where_lost_entities_count_0"] = found["link"]["mrr"] * len(taken_T3) / gone.height
        _so_far(found)
        proposed = propose_links(workspace, arguments.most)
        table = proposed.proposals
        ids = table.select(pl.col(c.HEAD).replace(links), c.RELATION, pl.col(c.TAIL).replace(links))
        is_true = is_among(in_rows(ids, graph, links), taken_T3)
        confidence = table[CONFIDENCE].to_numpy()
        found["proposals"] = {"of_all": table.height, "facts": proposed.facts} | {
            f"best_{most}": promised(confidence, is_true, most) for most in (50, 200, arguments.most)
        }
        accepted = judge(workspace, table, pl.Series(is_true.numpy()))
        found["precision_by_relation"] = [
            {name: one[name] for name in ("relation", "accepted", "rejected", "precision", "mean_confidence")}
            for one in LinkReview(workspace.links).precision()
        ][:12]
        _so_far(found)
        with_accepted = chain(workspace, folder / "stays.tsv", overrides)
        assert int(with_accepted["graph"].facts.get("links_accepted", 0)) == accepted
        put_back = chain(Workspace(folder / "whole"), folder / "whole.tsv", overrides)
        for name, number, again in (("accepted", accepted, with_accepted), ("all_taken_out", gone.height, put_back)):
            found[f"ranking_{name}"] = {"links": number} | compared(made["evaluate"], again["evaluate"])
        _so_far(found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
