"""A run that goes on from the promoted version: when it may, what it keeps, and when a full training is forced."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from feature_store.catalog import VIEWS
from kgrec import columns as c
from kgrec.artifacts import Artifact, ArtifactStore
from kgrec.chain import increments, judge, starting
from kgrec.chain.blocks import neighbour_matrices
from kgrec.chain.context import Run
from kgrec.chain.increments import START, Start, agrees, find_start, increment_rule
from kgrec.chain.learn import learned_by
from kgrec.chain.questions import Judge
from kgrec.chain.refining import fitted_before, refine_baselines
from kgrec.chain.starting import overlap
from kgrec.chain.tuning import FAR_BEHIND, LINEAR, SOURCES, Teacher, best_baseline, read_tuned, write_tuned
from kgrec.config import TaskName, load_config
from kgrec.serving.policy import IncrementRule
from kgrec.serving.versions import read_registry
from kgrec.stages import run
from kgrec.workspace import Workspace
from tests import worlds
from tests.serving.test_neighbours import filled

GOES_ON = ["training.start=promoted", "gate.baselines=[]", "gate.tolerance=0.9", "training.increment.full_every=1"]


def grown(folder: Path, *lines: str) -> Path:
    """Write the tiny world with more events at its end and return its config."""
    shutil.copytree(worlds.TINY.parent / "tiny", folder / "tiny")
    with (folder / "tiny" / "ratings.csv").open("a") as log:
        log.writelines(f"{line}\n" for line in lines)
    return Path(shutil.copy(worlds.TINY, folder))


def last_of(place: Path, kind: str) -> Artifact:
    """Return the artifact behind the newest version."""
    record = read_registry(Workspace(place)).versions[-1]
    store = ArtifactStore(place / "artifacts")
    version = store.find("version", record.key)
    assert version is not None
    found = store.with_digest(kind, version.inputs[kind])
    assert found is not None
    return found


def events_after(days: int) -> list[str]:
    """Return lines of new events: a new user and a new item among them."""
    at = worlds.START + worlds.SPAN + 86_400 * days
    log = pl.read_csv(worlds.TINY.parent / "tiny" / "ratings.csv", infer_schema=False)
    users, items = log["user"].unique(maintain_order=True), log["item"].unique(maintain_order=True)
    return [
        f"{user},{item},rating,5,{at + place}"
        for place, (user, item) in enumerate([("newcomer", items[0]), (users[0], "novelty"), ("newcomer", items[3]),
                                              *zip(users.head(12), items.tail(12), strict=True)])
    ]  # fmt: skip


@pytest.mark.slow
def test_an_increment_goes_on_and_a_full_training_measures_it(tiny_copy, tmp_path):
    before = last_of(tiny_copy, "train")
    refitted = [*GOES_ON, "training.refit=true"]
    result = run(grown(tmp_path, *events_after(1)), tiny_copy, overrides=refitted, views=VIEWS)
    made = last_of(tiny_copy, "train")
    assert result.released.promoted
    assert made.facts[START] | {"why": ""} == {
        "full": False, "from_version": "1", "increments": 1, "why": "", "parameters_from_scratch": [],
    }  # fmt: skip
    store = ArtifactStore(tiny_copy / "artifacts")
    tuned, refined = (read_tuned(store.with_digest("baselines", one.inputs["baselines"])) for one in (before, made))
    used = {best_baseline(tuned, names, "ndcg@5") for names in SOURCES}
    for name, choice in tuned.items():
        if name in LINEAR:
            out = "left_out" in choice or refined[name].get(FAR_BEHIND)
            assert out or refined[name]["validation"] != choice["validation"], "on today's validation"
        if name in used & set(LINEAR):
            tried = [one["setting"] for one in refined[name]["tried"]]
            assert choice["setting"] in tried, "climbed on from where the base stood"
            assert len(tried) <= 1 + 2 * len(choice["setting"]) or refined[name]["setting"] != choice["setting"]
        elif name in LINEAR:
            assert refined[name]["setting"] == choice["setting"], "judged where it stands"
        else:
            assert refined[name] == choice, "the graph hardly changed, or no part of the score: as it was chosen"
    kept = fitted_before(store.with_digest("baselines", made.inputs["baselines"]))
    log, graph = (store.with_digest(kind, made.inputs[kind]) for kind in ("split", "graph"))
    assert len(set(kept) & set(LINEAR)) == 1
    (linear,) = set(kept) & set(LINEAR)
    config = load_config(tmp_path / "tiny.toml").config
    teacher = Teacher(config, log, graph, refined)
    assert (filled(kept[linear]) == teacher.fitted(linear).matrix_II).all(), "training serves what it would fit"
    assert set(kept) == {linear}
    anew = neighbour_matrices(teacher, config.blocks, with_graph=True)[0]
    stored = neighbour_matrices(Teacher(config, log, graph, refined, kept), config.blocks, with_graph=True)[0]
    assert set(anew) == set(stored) == {"linear", "kernel"}
    assert all((filled(stored[name]) == filled(one)).all() for name, one in anew.items())
    old, new = (load_file(artifact.file("weights.safetensors")) for artifact in (before, made))
    moved = (new["tables.users_UD"][: len(old["tables.users_UD"])] - old["tables.users_UD"]).norm()
    assert 0 < moved < 0.5 * old["tables.users_UD"].norm(), "it went on from the rows that stood"
    assert "link" not in result.metrics["test"], "links are judged with the next full training"
    assert set(result.baselines) == set(), "of an increment the gate's baselines alone are judged"
    assert result.stages["train"].get("cached") is False

    refit = load_file(last_of(tiny_copy, "refit").file("weights.safetensors"))
    seen = refit["tables.users_UD"][: len(old["tables.users_UD"])]
    assert 0 < (seen - old["tables.users_UD"]).norm() < 0.5 * old["tables.users_UD"].norm(), "its refit went on, too"

    again = run(tmp_path / "tiny.toml", tiny_copy, overrides=refitted, views=VIEWS)
    assert all(stage["cached"] for stage in again.stages.values()), "the same data: there is nothing to go on to"
    assert again.released.version == result.released.version

    shutil.rmtree(tmp_path / "tiny")
    full = run(grown(tmp_path, *events_after(1), *events_after(2)), tiny_copy, overrides=refitted, views=VIEWS)
    start = last_of(tiny_copy, "train").facts[START]
    assert start["full"]
    assert "there were 1 increments" in start["why"]
    assert 0 < start["agreement"]["overlap@10"] <= 1
    assert start["agreement"]["full"] == pytest.approx(
        last_of(tiny_copy, "train").facts["blocks"]["validation_ndcg@5"], abs=0.05
    )
    assert {"popularity", "ease"} <= set(full.baselines)


def test_what_the_score_takes_is_compared_on_one_day(tiny, tmp_path):
    """A figure of the base's validation does not win against today's, however good that day was."""
    log, graph = (last_of(tiny.workspace, kind) for kind in ("split", "graph"))
    store = ArtifactStore(tiny.workspace / "artifacts")
    choices = read_tuned(store.with_digest("baselines", last_of(tiny.workspace, "train").inputs["baselines"]))
    metric = "ndcg@5"
    rightly = best_baseline(choices, LINEAR, metric)
    others = [name for name in LINEAR if name != rightly]
    best = choices[rightly]["validation"]["ranking"][metric]
    for good, name in zip((1.02 * best, 1.03 * best), others, strict=True):
        choices[name]["validation"]["ranking"][metric] = good
    before = ArtifactStore(tmp_path / "artifacts").build(
        "baselines", {}, {}, lambda out: write_tuned(out, choices) or {}
    )[0]
    context = Run(load_config(worlds.TINY, GOES_ON), Workspace(tmp_path))
    refined = refine_baselines(context, log, graph, before)
    found = read_tuned(refined)
    assert best_baseline(found, LINEAR, metric) == rightly
    assert set(fitted_before(refined)) & set(LINEAR) == {rightly}
    assert [len(found[name]["tried"]) for name in LINEAR] == [1, 1, 1], "who led and leads no more is not climbed on"


def test_who_was_far_behind_is_out_until_a_full_training(tiny, tmp_path):
    """Neither judged nor, on a day when all others are worse than it was, the best."""
    log, graph = (last_of(tiny.workspace, kind) for kind in ("split", "graph"))
    store = ArtifactStore(tiny.workspace / "artifacts")
    choices = read_tuned(store.with_digest("baselines", last_of(tiny.workspace, "train").inputs["baselines"]))
    metric, (leader, near, far) = "ndcg@5", LINEAR
    for good, name in zip((20.0, 19.1, 18.9), LINEAR, strict=True):
        choices[name]["validation"]["ranking"][metric] = good
    for night in ("first", "second"):
        before = ArtifactStore(tmp_path / night / "artifacts").build(
            "baselines", {}, {}, lambda out, choices=choices: write_tuned(out, choices) or {}
        )[0]
        context = Run(load_config(worlds.TINY, GOES_ON), Workspace(tmp_path / night))
        refined = refine_baselines(context, log, graph, before)
        choices = read_tuned(refined)
        assert choices[far]["validation"]["ranking"][metric] == 18.9
        assert all(choices[name]["validation"]["ranking"][metric] < 1 for name in (leader, near))
        assert best_baseline(choices, LINEAR, metric) in {leader, near}
        assert set(fitted_before(refined)) == {best_baseline(choices, LINEAR, metric)}


def test_who_was_far_behind_is_judged_again_where_the_leader_cannot_run_any_more(tiny, tmp_path):
    log, graph = (last_of(tiny.workspace, kind) for kind in ("split", "graph"))
    store = ArtifactStore(tiny.workspace / "artifacts")
    choices = read_tuned(store.with_digest("baselines", last_of(tiny.workspace, "train").inputs["baselines"]))
    choices["ease"]["validation"]["ranking"]["ndcg@5"] = 20.0
    before = ArtifactStore(tmp_path / "artifacts").build(
        "baselines", {}, {}, lambda out: write_tuned(out, choices) or {}
    )[0]
    too_many = load_config(worlds.TINY, [*GOES_ON, "baselines.ease_max_items=1"])
    found = read_tuned(refine_baselines(Run(too_many, Workspace(tmp_path)), log, graph, before))
    assert "left_out" in found["ease"]
    assert best_baseline(found, LINEAR, "ndcg@5") in {"linear_filter", "item_knn"}


def test_a_baseline_that_was_chosen_earlier_and_cannot_run_now_is_left_out_of_the_comparison(tiny, tmp_path):
    log, graph = (last_of(tiny.workspace, kind) for kind in ("split", "graph"))
    store = ArtifactStore(tiny.workspace / "artifacts")
    choices = read_tuned(store.with_digest("baselines", last_of(tiny.workspace, "train").inputs["baselines"]))
    config = load_config(worlds.TINY, ["baselines.ease_max_items=1"])
    teacher = Teacher(config.config, log, graph, {name: choices[name] for name in ("ease", "popularity")})
    judged = Judge(config.config.evaluation, log, None, None, (TaskName.CLICK,))
    found, lists = judge._baselines(Run(config, Workspace(tmp_path)), judged, teacher)
    assert "ease_max_items" in found["ease"]["left_out"]
    assert set(lists) == {"popularity"}


def started(place: Path, *overrides: str, config: Path = worlds.TINY) -> Any:
    """Return where a run on a workspace would start, on the promoted version's own log unless its parts are others."""
    loaded = load_config(config, [*GOES_ON, *overrides])
    context = Run(loaded, Workspace(place))
    log, graph = (last_of(place, kind) for kind in ("split", "graph"))
    tasks = (TaskName.CLICK, TaskName.CONVERSION, TaskName.KG)
    settings = learned_by(loaded.config, tasks)
    made = last_of(place, "train").config
    return find_start(context, settings | {"tasks": made["tasks"]}, log, graph)


def test_the_baselines_of_an_increment_are_settled_ahead_and_waited_for(monkeypatch):
    context, made = Run(load_config(worlds.TINY), Workspace("unused")), []

    def slow(*_: object) -> str:
        time.sleep(0.05)
        made.append(threading.current_thread().name)
        return "tuned"

    monkeypatch.setattr(starting, "settle_baselines", slow)
    for threads, full, ahead in ((0, False, True), (0, True, False), (1, False, False)):
        training = context.config.training.model_copy(update={"threads": threads})
        config = context.config.model_copy(update={"training": training})
        one = replace(context, loaded=replace(context.loaded, config=config))
        monkeypatch.setattr(starting, "start_of", lambda *_, full=full: Start(None, full, 0, ""))
        made.clear()
        with pytest.raises(KeyError), starting.settled_ahead(one, None, None, None):
            raise KeyError
        assert len(made) == (1 if ahead else 0), "what was begun has ended before anybody hears of a fault beside it"
        with starting.settled_ahead(one, None, None, None) as settle:
            assert settle() == "tuned"
            assert settle() == "tuned", "tried again"
        assert made[-2 if ahead else -1].startswith("kgrec-settles") is ahead


def test_nothing_to_start_from_is_a_full_training_and_says_why(tiny, tiny_copy, tmp_path):
    assert started(tiny.workspace, "training.start=scratch") is None
    assert started(tiny.workspace) is None, "the promoted version was trained on these very data, in full"
    assert "model, losses" not in started(tiny.workspace, "model.dimensions=8").why
    assert started(tiny.workspace, "model.dimensions=8").why.endswith("version 1: model")
    assert "phases" in started(tiny.workspace, "training.knowledge=frozen").why
    assert started(tiny.workspace, "name=other").why == "no version of this name is promoted"
    train = last_of(tiny_copy, "train")
    split = last_of(tiny_copy, "split")
    loaded = load_config(worlds.TINY, GOES_ON)
    shutil.rmtree(train.path)
    found = find_start(Run(loaded, Workspace(tiny_copy)), {}, split, last_of(tiny_copy, "graph"))
    assert (found.full, found.base, found.why) == (True, None, "what the promoted version was made of is gone")


def test_events_that_were_learned_from_and_are_now_held_out_forbid_an_increment(tiny, tmp_path):
    log = last_of(tiny.workspace, "split")
    events = pl.read_parquet(log.file("events.parquet"))

    def make(part_of_first: str) -> Artifact:
        def write(out: Path) -> dict[str, Any]:
            for name in log.files:
                shutil.copy(log.file(name), out / name)
            moved = pl.when(pl.int_range(pl.len()) < 3).then(pl.lit(part_of_first)).otherwise(c.PART)
            moved = pl.when(pl.col(c.PART) == c.TRAIN).then(moved).otherwise(c.PART).cast(events[c.PART].dtype)
            events.with_columns(moved.alias(c.PART)).write_parquet(out / "events.parquet")
            return dict(log.facts) | {"note": part_of_first}

        return ArtifactStore(tmp_path).build("split", {"part": part_of_first}, {}, write)[0]

    context = Run(load_config(worlds.TINY, GOES_ON), Workspace(tiny.workspace))
    graph = last_of(tiny.workspace, "graph")
    assert find_start(context, {}, make(c.TRAIN), graph).full is False
    leaked = find_start(context, {}, make(c.TEST), graph)
    assert (leaked.full, leaked.base) == (True, None)
    assert "now held out" in leaked.why
    base = increments._base(context, read_registry(Workspace(tiny.workspace)).versions[0])
    moved = make(c.TRAIN)
    assert increments._learned_and_judged(base, moved) == 0
    refitted = replace(base, again=base.trained)
    judged = pl.read_parquet(log.file("events.parquet")).with_columns(
        pl.lit(c.TEST).cast(events[c.PART].dtype).alias(c.PART)
    )
    later = ArtifactStore(tmp_path).build("split", {"part": "all"}, {}, lambda out: _all_held_out(judged, out))[0]
    parts = events[c.PART].cast(pl.String).value_counts(name="rows")
    rows = dict(parts.iter_rows())
    assert increments._learned_and_judged(base, later) == rows[c.TRAIN]
    assert increments._learned_and_judged(refitted, later) == rows[c.TRAIN] + rows[c.VALIDATION], "a refit saw more"


def _all_held_out(events: pl.DataFrame, out: Path) -> dict[str, Any]:
    events.write_parquet(out / "events.parquet")
    return {}


def test_an_increment_that_agreed_too_little_or_was_refused_forces_a_full_training(tiny_copy, monkeypatch):
    base = increments._base(
        Run(load_config(worlds.TINY), Workspace(tiny_copy)), read_registry(Workspace(tiny_copy)).versions[0]
    )
    context = Run(load_config(worlds.TINY, [*GOES_ON, "training.increment.full_every=9"]), Workspace(tiny_copy))
    assert increments._due(context, base, 0) is None
    for found, words in (({"overlap@10": 0.5, "full": 0.2, "increment": 0.2}, "0.500"),
                         ({"overlap@10": 0.95, "full": 0.2, "increment": 0.1}, "0.950")):  # fmt: skip
        base.trained.facts[START] = {"agreement": found, "full": True}
        assert words in increments._due(context, base, 0)
    base.trained.facts[START] = {"agreement": {"overlap@10": 0.95, "full": 0.2, "increment": 0.199}, "full": True}
    assert increments._due(context, base, 0) is None
    assert "there were 9 increments" in increments._due(context, base, 9)
    monkeypatch.setattr(increments, "_refused_increment", lambda run: True)
    assert "refused" in increments._due(context, base, 0)


def test_each_increment_draws_its_part_of_an_epoch_anew(tiny_copy):
    config = load_config(worlds.TINY, [*GOES_ON, "training.increment.share=0.5"]).config
    base = increments._base(
        Run(load_config(worlds.TINY), Workspace(tiny_copy)), read_registry(Workspace(tiny_copy)).versions[0]
    )
    first = base.suited(config)
    assert (first.training.epochs, first.training.epoch_share) == (1, 0.5)
    base.trained.facts[START] = {"increments": 1}
    second = base.suited(config)
    assert len({config.seed, first.seed, second.seed}) == 3
    assert base.suited(config).seed == second.seed, "the same night again: the same rows"


def test_the_policy_says_what_agreement_is(tmp_path):
    close = {"overlap@10": 0.92, "full": 0.2, "increment": 0.199}
    assert agrees(IncrementRule(), close)
    assert not agrees(IncrementRule(least_overlap=0.93), close)
    assert not agrees(IncrementRule(largest_loss=0.001), close)
    (tmp_path / "policy.toml").write_text("[increment]\nleast_overlap = 0.93\n")
    config = tmp_path / "tiny.toml"
    config.write_text(worlds.TINY.read_text() + '[gate]\npolicy = "policy.toml"\n')
    context = Run(load_config(config), Workspace(tmp_path / "w"))
    assert increment_rule(context).least_overlap == 0.93
    assert increment_rule(Run(load_config(worlds.TINY), Workspace(tmp_path / "w"))) == IncrementRule()


def test_overlap_is_the_mean_share_of_places():
    draw = torch.Generator().manual_seed(3)
    one, other = (torch.stack([torch.randperm(12, generator=draw)[:5] for _ in range(20)]) for _ in range(2))
    slow = [len({*a} & {*b}) / 5 for a, b in zip(one.tolist(), other.tolist(), strict=True)]
    assert overlap(one, other) == pytest.approx(sum(slow) / len(slow))
    assert overlap(one, one) == 1.0
    assert overlap(torch.full((2, 3), -1), torch.full((2, 3), -1)) == 1.0
