"""The page on scale says what the simulator computes, and the simulator's sums are those of a plain reading."""

import json
from pathlib import Path

import pytest

from benchmarks.plan import SLOPES, Cost, World, page, plan

SCALE = Path(__file__).parents[1] / "docs" / "scale.md"


def slopes():
    return json.loads(SLOPES.read_text(encoding="utf-8"))


def test_the_page_is_what_the_simulator_prints():
    assert SCALE.read_text(encoding="utf-8") == page(World(), slopes()), "python benchmarks/plan.py > docs/scale.md"


def test_another_slope_is_another_page():
    for name, figures in slopes().items():
        for inner, value in figures.items():
            if inner != "from":
                changed = slopes()
                changed[name][inner] = 1.5 * value
                before, after = (plan(World(), one) for one in (slopes(), changed))
                assert before != after, f"{name}.{inner} has no effect"


@pytest.mark.parametrize("what", ["events", "users", "items", "triples"])
def test_a_larger_world_costs_more(what):
    small, large = World(), World(**{what: 10 * getattr(World(), what)})
    costs = [sum(cost.dollars for cost in plan(world, slopes())) for world in (small, large)]
    assert costs[1] > costs[0]


def test_a_stage_is_paid_for_by_machine_and_by_what_it_keeps():
    cost = Cost("x", stays=1e12, seconds=3600 * 64, memory=200e9, why="")
    assert cost.machines == 2, "200 GB on machines of which 102 GB are used"
    assert cost.hours == pytest.approx(1.0), "64 core hours on 64 cores"
    assert cost.dollars == pytest.approx(2 * (32 * 0.04 + 128 * 0.005) + 1000 * 0.023)


def test_ten_times_the_events_take_ten_times_the_ingest_and_no_more_memory():
    small, large = (plan(World(events=events), slopes())[0] for events in (1e8, 1e9))
    assert large.seconds == pytest.approx(10 * small.seconds)
    assert large.memory == small.memory
