"""The stage `graph` by itself: bins of train, instants, same-as, inverses, leaks; each config key has its effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from kgrec.artifacts import Artifact
from kgrec.chain.context import Run
from kgrec.config import load_config
from kgrec.errors import InputError
from kgrec.stages import run_chain
from kgrec.workspace import Workspace
from tests.calling import call

DAY = 86_400


def events() -> str:
    rows = [f"u{at % 7},i{(at * 5) % 12},click,{at * DAY}" for at in range(1, 85)]
    return "user,item,event,timestamp\n" + "\n".join(rows) + "\n"


def build(folder: Path, knowledge: str, **files: str) -> Artifact:
    (folder / "log.csv").write_text(events())
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)
    config = folder / "c.toml"
    config.write_text(f'[interactions]\npath = "log.csv"\n[knowledge]\nvalidation = 0.0\ntest = 0.0\n{knowledge}')
    built = run_chain(Run(load_config(config), Workspace(folder / "workspace")), until="graph")
    assert isinstance(built, Artifact)
    return built


def frame(built: Artifact) -> pl.DataFrame:
    triples, nodes = (pl.read_parquet(built.file(f"{name}.parquet")) for name in ("triples", "nodes"))
    names = dict(nodes.select("node", "name").iter_rows())
    report = pl.read_parquet(built.file("relations.parquet"))
    relations = dict(report.select("relation_row", "name").iter_rows())
    return triples.with_columns(
        pl.col("head_row").replace_strict(names, return_dtype=pl.String).alias("head"),
        pl.col("tail_row").replace_strict(names, return_dtype=pl.String).alias("tail"),
        pl.col("relation_row").replace_strict(relations, default=None, return_dtype=pl.String).alias("relation"),
    )


def parts(built: Artifact) -> dict[str, str]:
    return dict(frame(built).with_columns(pl.col("part").cast(pl.String)).select("tail", "part").iter_rows())


def test_a_triple_that_was_not_known_in_train_is_not_in_train(tmp_path: Path) -> None:
    text = f"head,relation,tail,known_at\ni1,by,early,{DAY}\ni2,by,always,\ni3,by,late,{84 * DAY}\n"
    text += f"i4,by,middle,{72 * DAY}\n"
    built = build(tmp_path, 'triples = ["t.csv"]\n', t=text)
    assert parts(built) == {"early": "train", "always": "train", "middle": "validation", "late": "test"}
    blind = build(tmp_path, 'triples = ["t.csv"]\nknown_at = "none"\n')
    assert set(parts(blind).values()) == {"train"}


def test_bins_are_cut_on_items_of_train(tmp_path: Path) -> None:
    items = "item,price\n" + "".join(f"i{at},{at}\n" for at in range(12)) + "new1,1000\nnew2,2000\nnew3,3000\n"
    tables = '[[knowledge.tables]]\npath = "p.csv"\nrelations = { price = { bins = 2 } }\n'
    found = frame(build(tmp_path, tables, p=items))
    assert set(found["tail"]) == {"below 6", "from 6"}
    assert found.height == 15


def test_same_as_inverses_conflicts_and_prefixes(tmp_path: Path) -> None:
    films = "".join(f"i{at},directed_by,d{at % 3}\nd{at % 3},films,i{at}\n" for at in range(9))
    text = f"head,relation,tail\n{films}d0,same,http://x/d0\nhttp://x/d0,born,1950\nd0,born,1951\n"
    same = 'triples = ["t.csv"]\n[knowledge.prefixes]\nx = "http://x/"\n[knowledge.merging]\n'
    plain = build(tmp_path, same, t=text)
    assert "x:d0" in set(frame(plain)["tail"])
    assert plain.facts["ids_merged_by_same_as"] == 0
    merged = build(
        tmp_path, same + 'same_as = ["same"]\nfunctional = ["born"]\nconflicts = "first"\ninverses = "merge"\n'
    )
    assert merged.facts["ids_merged_by_same_as"] == 1
    assert merged.facts["conflicts"] == 1
    assert merged.facts["triples_merged_with_their_inverse"] == 9
    assert frame(merged).height == 9 + 1
    strict = build(tmp_path, same + 'inverses = "merge"\nagreement = 1.0\n', t=text + "i9,directed_by,d0\n")
    assert strict.facts["triples_merged_with_their_inverse"] == 0


LEAK = "head,relation,tail\ni1,also_bought,i2\ni2,also_bought,i3\ni1,genre,comedy\n"


def test_a_relation_that_restates_the_log_is_refused_dropped_allowed_or_time_stamped(tmp_path: Path) -> None:
    def facts(more: str, text: str = LEAK) -> dict[str, Any]:
        return dict(build(tmp_path, 'triples = ["t.csv"]\n' + more, t=text).facts)

    with pytest.raises(InputError, match="relation also_bought: restates the log") as caught:
        facts("")
    assert "knowledge.leaks.allowed" in str(caught.value)
    dropped = facts('[knowledge.leaks]\naction = "drop"\n')
    assert (dropped["triples"], list(dropped["relations_that_restate_the_log"])) == (1, ["also_bought"])
    assert facts('[knowledge.leaks]\naction = "report"\n')["triples"] == 3
    assert facts('[knowledge.leaks]\nallowed = ["also_bought"]\n')["relations_that_restate_the_log"] == {}
    stamped = "".join(f"{line},{'known_at' if at == 0 else DAY}\n" for at, line in enumerate(LEAK.splitlines()))
    assert facts("", stamped)["triples"] == 3


def test_the_report_shortens_relations_and_names_their_inverse(tmp_path: Path) -> None:
    films = "".join(f"i{at},http://x/by,d{at % 3}\nd{at % 3},http://x/made,i{at}\n" for at in range(9))
    build(tmp_path, 'triples = ["t.csv"]\nprefixes = { x = "http://x/" }\n', t=f"head,relation,tail\n{films}")
    text = call("graph", "report", "--workspace", tmp_path / "workspace").stdout
    assert "inverse of x:made" in text
    assert "http://x/" not in text
