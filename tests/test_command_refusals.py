"""Everything a user can bring that is wrong, through the command: status 2 and a message, never a traceback."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

from tests.calling import KGREC, as_json, call

LOG = "user,item,event,timestamp\na,x,click,1700000000\nb,y,click,1700000001\na,y,purchase,1700000002\n"
TRIPLES = "head,relation,tail\nx,by,p\n"
WITH_LOG = '[interactions]\npath = "log.csv"\n'
WITH_GRAPH = WITH_LOG + '[knowledge]\ntriples = ["t.csv"]\n'
COUNTED = re.compile(r"\([\d,]+ times?\)")
Content = str | bytes | Callable[[Path], None]


@dataclass(frozen=True)
class Fault:
    """What a user brings, and what the message must hold. counted: whether it tells how many, with an example."""

    says: tuple[str, ...]
    files: Mapping[str, Content] = field(default_factory=dict)
    config: str | bytes | None = WITH_LOG
    counted: bool = True
    overrides: tuple[str, ...] = ()


def cut_short(path: Path) -> None:
    pl.DataFrame({"user": [1] * 999, "item": range(999)}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])


def with_lists(path: Path) -> None:
    pl.DataFrame({"user": [1], "item": [1], "timestamp": [[1]]}).write_parquet(path)


def with_users(*users: int | str) -> Callable[[Path], None]:
    return lambda path: pl.DataFrame({"user": users, "item": users}).write_parquet(path)


FAULTS = {
    "missing config": Fault(("shop.toml: no such config file", "did you mean", "shopp.toml"), {"shopp.toml": WITH_LOG},
                            None, counted=False),
    "broken TOML": Fault(("shop.toml: broken TOML", "line 1"), {}, "[interactions\n", counted=False),
    "config that is not text": Fault(("shop.toml: invalid UTF-8 at byte 8",), {}, b'name = "\xff"', counted=False),
    "unknown key": Fault(("shop.toml: training.epoch: unknown key", "did you mean 'epochs'?"), {},
                         WITH_LOG + "[training]\nepoch = 3\n", counted=False),
    "unknown table": Fault(("shop.toml: interaction: unknown key", "did you mean 'interactions'?"), {},
                           "[interaction]\npath = 'log.csv'\n", counted=False),
    "value out of range": Fault(("shop.toml: training.epochs: ", "greater than or equal to 1"), {}, WITH_LOG,
                                counted=False, overrides=("training.epochs=0",)),
    "override without a value": Fault(("--set training.epochs: not of the form KEY=VALUE",), {}, WITH_LOG,
                                      counted=False, overrides=("training.epochs",)),
    "nothing to learn from": Fault(("neither [interactions] nor [knowledge]",), {}, 'name = "x"\n', counted=False),
    "missing data file": Fault(("log.csv: the file does not exist", "did you mean 'logs.csv'"), {"logs.csv": LOG}),
    "missing column": Fault(("log.csv: there is no column 'item'", "interactions.columns.item", "items"),
                            {"log.csv": LOG.replace("item", "items")}),
    "wrong dtype": Fault(("log.parquet: column 'timestamp' has the type List(Int64)", "cast it"),
                         {"log.parquet": with_lists}, WITH_LOG.replace("csv", "parquet")),
    "empty log": Fault(("log.csv: the log has no rows (0 times)",), {"log.csv": "user,item,event,timestamp\n"}),
    "log without clicks": Fault(("log.csv: the log has no clicks", "wave 2", "roles.click"),
                                {"log.csv": "user,item,event\na,x,wave\nb,x,wave\n"}),
    "triples with null and blank ends": Fault(
        ("t.csv: blank head (2 times)", "t.csv line 2", "t.csv: blank tail (1 time)", "fill in"),
        {"log.csv": LOG, "t.csv": TRIPLES + ",by,p\n  ,by,q\ny,by,\n"}, WITH_GRAPH),
    "link to an item that does not exist": Fault(
        ("links.csv: link to an item that does not exist (1 time)", "ghost", "remove the link"),
        {"log.csv": LOG, "t.csv": TRIPLES, "links.csv": "item,entity\nx,x\nghost,nowhere\n"},
        WITH_GRAPH + 'links = "links.csv"\n'),
    "duplicate rows": Fault(("log.csv: duplicate row (2 times)", "line 4", "remove the repeated rows"),
                            {"log.csv": LOG + "a,x,click,1700000000\n" * 2}),
    "timestamps in the future": Fault(("log.csv: time in the future (1 time)", "line 4", "check the unit"),
                                      {"log.csv": LOG + "a,x,click,4000000000\n"}),
    "mixed id types across a glob": Fault(
        ("column 'user' has mixed types (2 times)", "a.parquet has Int64, b.parquet has String"),
        {"a.parquet": with_users(1), "b.parquet": with_users("x")}, WITH_LOG.replace("log.csv", "*.parquet")),
    "invalid UTF-8": Fault(("log.csv: line 5 is not valid UTF-8", "save the file as UTF-8"),
                           {"log.csv": LOG.encode() + "c,caf\u00e9,click,5\n".encode("latin-1")}),
    "truncated Parquet": Fault(("log.parquet: the Parquet file cannot be read", "copy or write the file again"),
                               {"log.parquet": cut_short}, WITH_LOG.replace("csv", "parquet")),
    "broken RDF": Fault(("own.nt: broken RDF at line 2", "correct the line"),
                        {"log.csv": LOG, "own.nt": "<http://a> <http://b> <http://c> .\n<http://a> b .\n"},
                        WITH_GRAPH.replace("t.csv", "own.nt")),
    "conversion without its events": Fault(
        ("shop.toml: tasks: the task 'conversion' has no labels", "the data allows: click", "[interactions.roles]"),
        {"log.csv": LOG.replace("purchase", "click")}, 'tasks = ["click", "conversion"]\n' + WITH_LOG, counted=False),
    "kg without triples": Fault(("tasks: the task 'kg' has no labels", "[knowledge] triples"), {"log.csv": LOG},
                                'tasks = ["kg"]\n' + WITH_LOG, counted=False),
    "target without its events": Fault(("evaluation.target: no event counts as a conversion",),
                                       {"log.csv": LOG.replace("purchase", "click")}, WITH_LOG, counted=False,
                                       overrides=('evaluation.target="conversion"',)),
}  # fmt: skip


def write(folder: Path, fault: Fault) -> None:
    files = dict(fault.files)
    if fault.config is not None:
        files["shop.toml"] = fault.config
    for name, content in files.items():
        if callable(content):
            content(folder / name)
        else:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.usefixtures("without_prefect")
def test_bad_input_ends_with_2_and_a_message_for_people(tmp_path: Path, name: str) -> None:
    fault = FAULTS[name]
    write(tmp_path, fault)
    settings = [word for override in fault.overrides for word in ("--set", override)]
    arguments = ["ingest", tmp_path / "shop.toml", *settings, "--workspace", tmp_path / "workspace"]
    plain = call(*arguments)
    assert plain.exit_code == 2
    assert plain.stdout == ""
    for words in fault.says:
        assert words in plain.stderr
    assert "remedy:  " in plain.stderr
    assert "Traceback" not in plain.stderr
    if fault.counted:
        assert COUNTED.search(plain.stderr)
        assert "example: " in plain.stderr
    answer = call(*arguments, "--json")
    assert answer.exit_code == 2
    problems = as_json(answer)["error"]["problems"]
    assert problems
    assert all(problem["where"] and problem["what"] and problem["remedy"] for problem in problems)


@pytest.mark.usefixtures("without_prefect")
def test_every_problem_of_a_config_is_listed(tmp_path: Path) -> None:
    write(
        tmp_path, Fault((), {}, 'sead = 1\n[interactions]\npath = "log.csv"\nlayuot = "events"\n[model]\nlayers = 9\n')
    )
    result = call("ingest", tmp_path / "shop.toml", "--workspace", tmp_path / "workspace", "--json")
    where = [problem["where"].partition(": ")[2] for problem in as_json(result)["error"]["problems"]]
    assert sorted(where) == ["interactions.layuot", "model.layers", "sead"]


@pytest.mark.parametrize("arguments", [("run", "nowhere.toml"), ("similar", "--item", "x", "--workspace", "empty")])
def test_the_installed_command_refuses_without_a_traceback(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = subprocess.run([KGREC, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "remedy:  " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_installed_command_refuses_bad_data_in_one_json_object(tmp_path: Path) -> None:
    write(tmp_path, FAULTS["triples with null and blank ends"])
    done = subprocess.run(
        [KGREC, "run", "shop.toml", "--json"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert len(json.loads(done.stdout)["error"]["problems"]) == 2
    assert "t.csv: blank head (2 times)" in done.stderr
    assert "Traceback" not in done.stderr
