from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from kgrec.config import RunConfig, TaskName, load_config
from kgrec.data.split import SplitKind
from kgrec.errors import InputError, nearest
from kgrec.evaluation.ranking import ExcludeSeen, Target

LOG = '[interactions]\npath = "log.csv"\n'
REQUIRED: dict[str, Any] = {"path": "x.csv", "event": "view", "relations": {}}


def write(folder: Path, text: str) -> Path:
    path = folder / "shop.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path, *overrides: str) -> tuple[Any, ...]:
    with pytest.raises(InputError) as error:
        load_config(path, overrides)
    return error.value.problems


def test_only_the_log_is_required(tmp_path):
    loaded = load_config(write(tmp_path, LOG))
    assert loaded.base == tmp_path
    assert loaded.config.interactions.path == "log.csv"
    assert (loaded.config.name, loaded.config.seed, loaded.config.tasks) == ("kgrec", 7, None)
    assert loaded.config.split.kind is SplitKind.TIME
    assert loaded.config == load_config(str(tmp_path / "shop.toml")).config


def test_words_become_types(tmp_path):
    text = 'name = "shop"\nseed = 3\ntasks = ["kg", "click"]\n' + LOG
    text += '[evaluation]\nk = [20, 5, 5]\ntarget = "conversion"\nexclude_seen = "none"\n[split]\nkind = "random"\n'
    config = load_config(write(tmp_path, text)).config
    assert config.tasks == (TaskName.KG, TaskName.CLICK)
    assert config.evaluation.target is Target.CONVERSION
    assert config.evaluation.exclude_seen is ExcludeSeen.NONE
    assert config.evaluation.k == (5, 20)
    assert config.split.kind is SplitKind.RANDOM


def test_a_config_cannot_be_changed(tmp_path):
    config = load_config(write(tmp_path, LOG)).config
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 8
    with pytest.raises(ValueError, match="frozen"):
        config.training.epochs = 8


def test_all_faults_come_at_once_each_with_its_place_and_remedy(tmp_path):
    text = 'seed = -1\nname = "no spaces please"\nsede = 3\n' + LOG + "colums = {}\n[training]\nepochs = 0\n"
    text += 'epoch = 3\nlearning_rate = "fast"\n[evaluation]\nk = [0]\ntarget = "sale"\n[modle]\ndimensions = 3\n'
    path = write(tmp_path, text)
    problems = refused(path)
    places = {problem.where.removeprefix(f"{path}: ").partition(".")[0] for problem in problems}
    wheres = {problem.where.removeprefix(f"{path}: ") for problem in problems}
    assert wheres >= {
        "seed", "name", "sede", "interactions.colums", "training.epochs", "training.epoch", "training.learning_rate",
        "evaluation.k", "evaluation.target", "modle",
    }  # fmt: skip
    assert places == {"seed", "name", "sede", "interactions", "training", "evaluation", "modle"}
    assert all(problem.remedy for problem in problems)
    assert next(p for p in problems if p.where.endswith("learning_rate")).example == "'fast'"
    assert next(p for p in problems if p.where.endswith(": modle")).remedy == "did you mean 'model'?"


def test_a_key_like_no_other_lists_what_is_known(tmp_path):
    (problem,) = refused(write(tmp_path, LOG + "[index]\nzzz = 1\n"))
    assert problem.what == "unknown key"
    assert problem.remedy == "known here: exact_items, kind, latency_ms, memory_map, recall, shards, threads"


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def places(model: type[BaseModel], path: tuple[tuple[str, str], ...] = ()) -> Iterator[Any]:
    """Yield (path, model) of every table that the config knows; a step is a key and its container."""
    yield path, model
    for name, field in model.model_fields.items():
        annotation = str(field.annotation)
        container = "list" if "tuple" in annotation else "dict" if "dict" in annotation else "table"
        for inner in models_in(field.annotation):
            yield from places(inner, (*path, (name, container)))


def raw_table(model: type[BaseModel]) -> dict[str, Any]:
    """Return a table with what it needs to be valid, so that the fault under test is the only one."""
    return {name: value for name, value in REQUIRED.items() if name in model.model_fields}


def as_raw(steps: tuple[tuple[str, str], ...], key: str) -> dict[str, Any]:
    """Return a raw config with an unknown key at a place."""
    root: dict[str, Any] = {} if steps and steps[0][0] == "interactions" else {"interactions": {"path": "log.csv"}}
    table, model = root, RunConfig
    for name, container in steps:
        model = models_in(model.model_fields[name].annotation)[0]
        inner = raw_table(model)
        table[name] = {"list": [inner], "dict": {"genres": inner}, "table": inner}[container]
        table = inner
    table[key] = 1
    return root


PLACES = list(places(RunConfig))


def test_the_walk_reaches_every_section_and_the_nested_tables():
    found = {".".join(name for name, _ in steps) for steps, _ in PLACES}
    sections = {name for name, field in RunConfig.model_fields.items() if models_in(field.annotation)}
    assert len(sections) >= 12
    assert found >= sections | {
        "interactions.columns", "interactions.roles.click", "interactions.labels", "knowledge.tables.relations",
        "model.towers",
    }  # fmt: skip


@pytest.mark.parametrize(("steps", "model"), PLACES, ids=lambda value: str(value) if isinstance(value, type) else None)
def test_every_table_refuses_an_unknown_key_with_the_nearest_name(tmp_path, monkeypatch, steps, model):
    assert model.model_config.get("extra") == "forbid"
    for name in model.model_fields:
        wrong = f"{name}x"
        assert wrong not in model.model_fields
        raw = as_raw(steps, wrong)
        monkeypatch.setattr("kgrec.config._read_toml", lambda path, raw=raw: raw)
        found = [problem for problem in refused(tmp_path / "shop.toml") if problem.where.endswith(f".{wrong}")
                 or problem.where.endswith(f" {wrong}")]  # fmt: skip
        assert len(found) == 1, (steps, name)
        assert found[0].what == "unknown key"
        assert found[0].remedy == f"did you mean {nearest(wrong, model.model_fields)!r}?"


def test_a_relation_named_like_a_key_is_still_looked_up_right(tmp_path):
    text = LOG + '[[knowledge.tables]]\npath = "items.csv"\n[knowledge.tables.relations.separator]\nseparatr = "|"\n'
    (problem,) = refused(write(tmp_path, text))
    assert problem.remedy == "did you mean 'separator'?"


def test_the_fields_of_a_list_entry_are_named_by_their_place(tmp_path):
    text = LOG + '[interactions.roles]\nconversion = ["purchase", { event = "rating", at_leest = 4.0 }]\n'
    (problem,) = refused(write(tmp_path, text))
    assert problem.where.endswith("interactions.roles.conversion.1.at_leest")
    assert problem.remedy == "did you mean 'at_least'?"


def test_a_password_is_not_repeated_in_a_message(tmp_path):
    secret = "postgresql://reader:s3cret@db/shop"
    for text in (f'[interactions]\nulr = "{secret}"\n', f'[interactions]\nurl = ["{secret}"]\nquery = "q"\n'):
        with pytest.raises(InputError) as error:
            load_config(write(tmp_path, text))
        assert "s3cret" not in str(error.value)
        assert "reader" in str(error.value) or "url" in str(error.value)


def test_overrides_have_the_types_of_toml(tmp_path):
    path = write(tmp_path, LOG + "[training]\nepochs = 9\nthreads = 1\n")
    config = load_config(
        path,
        [
            "training.epochs=3", "training.learning_rate = 0.5", "evaluation.k=[5]", "evaluation.target=conversion",
            'name="a"', "gate.compare_with_promoted=false", "training.task_weights={click = 2.0}",
            "split.validation=2024-05-01", "interactions.columns.user=visitor", "model.towers.hidden=[8, 4]",
        ],
    ).config  # fmt: skip
    assert (config.training.epochs, config.training.learning_rate, config.training.threads) == (3, 0.5, 1)
    assert config.evaluation.k == (5,)
    assert config.evaluation.target is Target.CONVERSION
    assert config.name == "a"
    assert config.gate.compare_with_promoted is False
    assert config.training.task_weights == {"click": 2.0}
    assert str(config.split.validation).startswith("2024-05-01")
    assert config.interactions.columns.user == "visitor"
    assert config.model.towers.hidden == (8, 4)


def test_the_last_override_of_a_key_wins_and_the_file_stands(tmp_path):
    path = write(tmp_path, LOG)
    assert load_config(path, ["seed=1", "seed=2"]).config.seed == 2
    assert load_config(path).config.seed == 7


@pytest.mark.parametrize("override", ["seed", "=3", "training.=3", ".seed=3", "training..epochs=3", ""])
def test_an_override_that_is_none_is_refused(tmp_path, override):
    (problem,) = refused(write(tmp_path, LOG), override)
    assert problem.where == f"--set {override}"
    assert "KEY=VALUE" in problem.what
    assert "training.epochs=3" in problem.remedy


@pytest.mark.parametrize("override", ["seed.deep=3", "interactions.path.deeper.still=3"])
def test_an_override_below_a_value_is_refused(tmp_path, override):
    (problem,) = refused(write(tmp_path, "seed = 1\n" + LOG), override)
    assert "is a value, not a table" in problem.what


def test_a_misspelt_override_is_refused_like_a_misspelt_key(tmp_path):
    (problem,) = refused(write(tmp_path, LOG), "training.epoch=3")
    assert problem.remedy == "did you mean 'epochs'?"
    (problem,) = refused(write(tmp_path, LOG), "training.epochs=three")
    assert problem.example == "'three'"


def test_broken_toml_says_the_line(tmp_path):
    (problem,) = refused(write(tmp_path, LOG + "\nseed = = 3\n"))
    assert "broken TOML" in problem.what
    assert "line 4" in problem.what
    (problem,) = refused(write(tmp_path, LOG + 'path = "twice"\n'))
    assert "broken TOML" in problem.what


def test_bytes_that_are_no_utf8_say_where(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes('name = "café"'.encode("latin-1"))
    (problem,) = refused(path)
    assert problem.what == "invalid UTF-8 at byte 11"
    assert "UTF-8" in problem.remedy


def test_a_missing_file_names_the_nearest(tmp_path):
    write(tmp_path, LOG)
    (problem,) = refused(tmp_path / "shpo.toml")
    assert problem.what == "no such config file"
    assert str(tmp_path / "shop.toml") in problem.remedy
    (problem,) = refused(tmp_path / "nowhere" / "shop.toml")
    assert problem.what == "no such config file"
    (problem,) = refused(tmp_path)
    assert problem.what.startswith("cannot be read")


def test_a_config_without_any_data_is_refused(tmp_path):
    (problem,) = refused(write(tmp_path, "seed = 1\n"))
    assert "neither [interactions] nor [knowledge]" in problem.what
    alone = load_config(write(tmp_path, '[knowledge]\ntriples = ["graph.nt"]\n')).config
    assert alone.interactions is None


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", "-a", "a" * 65, "é"])
def test_a_name_is_fit_for_a_file_and_a_registry(tmp_path, name):
    (problem,) = refused(write(tmp_path, f'name = "{name}"\n' + LOG))
    assert problem.where.endswith(": name")


def test_the_demo_config_is_valid():
    path = Path(__file__).parents[1] / "configs" / "ml-100k.toml"
    loaded = load_config(path)
    assert loaded.config.name == tomllib.loads(path.read_text())["name"]


def test_a_policy_of_the_gate_is_read_with_the_config_and_its_faults_are_told_at_once(tmp_path):
    path = tmp_path / "shop.toml"
    path.write_text('[interactions]\npath = "log.csv"\n[gate]\npolicy = "rules.toml"\n')
    with pytest.raises(InputError, match="policy cannot be read"):
        load_config(path)
    (tmp_path / "rules.toml").write_text("[paired]\nsignificance = 0.01\n")
    assert load_config(path).config.gate.policy == "rules.toml"


def test_a_column_to_split_figures_by_must_be_a_feature_of_the_users(tmp_path):
    path = tmp_path / "shop.toml"
    path.write_text(
        '[interactions]\npath = "log.csv"\n[users]\npath = "users.csv"\nfeatures = ["gender"]\n'
        '[evaluation.details]\nuser_columns = ["gendre"]\n'
    )
    with pytest.raises(InputError, match=r"'gendre' is not among(.|\n)*write 'gender'"):
        load_config(path)


def test_the_gates_metric_is_one_that_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[interactions]\npath = "a.csv"\n[evaluation]\nk = [20, 50]\n')
    assert load_config(path).config.gate.metric == "ndcg@20"
    assert load_config(path, ["evaluation.k=[5, 10]"]).config.gate.metric == "ndcg@10"
    assert load_config(path, ["gate.metric=recall@50"]).config.gate.metric == "recall@50"
    with pytest.raises(InputError) as raised:
        load_config(path, ["gate.metric=recall@10"])
    (problem,) = raised.value.problems
    assert "evaluation.k is 20, 50" in str(problem)
    assert "recall@20" in str(problem)
