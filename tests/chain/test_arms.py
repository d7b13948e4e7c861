"""Every arm is an honest change of the config, and what is no arm is refused with the nearest name."""

from __future__ import annotations

import pytest

from kgrec.chain.arms import ARMS, CHOICES, check_arms, owns, read_arms
from kgrec.config import TaskName, load_config
from kgrec.errors import InputError
from kgrec.evaluation.ranking import Target
from tests import worlds

CLICK, CONVERSION, KG = TaskName.CLICK, TaskName.CONVERSION, TaskName.KG
ALL = (CLICK, CONVERSION, KG)


@pytest.fixture(scope="module")
def loaded():
    return load_config(worlds.TINY)


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_changes_tasks_and_seed_and_no_other_key(name, loaded):
    arm = ARMS[name]
    changed = arm.loaded(loaded, ALL, 11).config
    assert changed.seed == 11
    assert changed.tasks == arm.tasks_of(ALL)
    assert changed.model_copy(update={"seed": loaded.config.seed, "tasks": None}) == loaded.config
    assert changed.split.model_fields_set == loaded.config.split.model_fields_set, "what the user said stays said"


def test_what_the_arms_learn():
    learned = {name: set(arm.tasks_of(ALL)) for name, arm in ARMS.items()}
    assert learned == {
        "full": set(ALL), "kg_off": {CLICK, CONVERSION}, "kg_shuffled": set(ALL), "click_only": {CLICK},
        "conversion_only": {CONVERSION}, "kg_only": {KG},
    }  # fmt: skip


@pytest.mark.parametrize("kind", CHOICES)
def test_a_choice_of_the_config_is_an_arm_where_the_key_is_there(kind, loaded):
    owner, key = loaded.config, CHOICES[kind].split(".")
    for part in key[:-1]:
        owner = getattr(owner, part)
    if key[-1] not in type(owner).model_fields:
        with pytest.raises(InputError, match=f"no key {CHOICES[kind]}"):
            read_arms(f"full,{kind}=hard", 1, loaded.config)
        return
    today = str(getattr(owner, key[-1]))
    arm = read_arms(f"full,{kind}={today}", 1, loaded.config)[1]
    assert arm.loaded(loaded, ALL, loaded.config.seed).config.model_copy(update={"tasks": None}) == loaded.config
    with pytest.raises(InputError, match="nosuchword"):
        read_arms(f"full,{kind}=nosuchword", 1, loaded.config)


def test_all_problems_come_at_once(loaded):
    with pytest.raises(InputError) as caught:
        read_arms("full,kg_of,click_only,click_only,xyzzy", 0, loaded.config)
    text = str(caught.value)
    assert "did you mean 'kg_off'?" in text
    assert "named twice: click_only" in text
    assert "no arm 'xyzzy'" in text
    assert "--seeds" in text
    with pytest.raises(InputError, match="nothing to compare"):
        read_arms("full", 3, loaded.config)


def test_arms_that_the_data_cannot_fill_are_refused_together():
    arms = [ARMS[name] for name in ("full", "kg_off", "conversion_only")]
    with pytest.raises(InputError) as caught:
        check_arms(arms, (CLICK,), has_graph=False)
    assert len(caught.value.problems) == 2
    with pytest.raises(InputError, match="nothing is left"):
        check_arms([ARMS["kg_off"]], (KG,), has_graph=True)
    check_arms(arms, ALL, has_graph=True)


def test_a_task_alone_answers_for_its_own_figures_alone():
    groups = ("ranking", "ranking_cold", "click", "conversion", "click_and_conversion", "link")
    owned = {
        name: {group for group in groups if owns(ARMS[name], group, Target.CLICK)}
        for name in ("full", "kg_off", "click_only", "conversion_only", "kg_only")
    }
    assert owned["full"] == owned["kg_off"] == set(groups)
    assert owned["click_only"] == {"ranking", "ranking_cold", "click"}
    assert owned["conversion_only"] == {"conversion"}
    assert owned["kg_only"] == {"link"}
    assert owns(ARMS["conversion_only"], "ranking", Target.CONVERSION)
