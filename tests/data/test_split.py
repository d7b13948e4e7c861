from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kgrec.columns import PART_TYPE, TIME_TYPE
from kgrec.data.split import (
    Boundaries,
    SplitConfig,
    SplitKind,
    apply_boundaries,
    assign_exposures,
    assign_parts,
    check_no_future,
    find_boundaries,
)
from kgrec.errors import InputError

START = datetime(2024, 1, 1, tzinfo=UTC)


def log(days, users=None, parts=None):
    times = [None if day is None else START + timedelta(days=day) for day in days]
    columns = {"user": users or ["u"] * len(times), "item": [f"i{n}" for n in range(len(times))]}
    frame = pl.DataFrame(columns).with_columns(pl.Series("time", times, dtype=TIME_TYPE))
    return frame if parts is None else frame.with_columns(pl.Series("part", parts, dtype=PART_TYPE))


def counts(assignment):
    return tuple(assignment.summary["counts"].values())


def test_time_takes_the_last_shares_and_says_so():
    done = assign_parts(log(range(20)), SplitConfig(), 7, has_time=True)
    assert done.parts.to_list() == ["train"] * 16 + ["validation"] * 2 + ["test"] * 2
    assert done.parts.dtype == PART_TYPE
    assert done.summary["label"] == "time: global"
    assert done.summary["boundaries"]["test"] == (START + timedelta(days=18)).isoformat()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=3), st.sampled_from([0.1, 0.3]), st.sampled_from([0.1, 0.25]))
def test_time_never_parts_equal_times_nor_mixes_order(days, validation, test):
    config = SplitConfig(validation=validation, test=test)
    frame = log(days)
    if len(set(days)) < 3:
        with pytest.raises(InputError, match="too few"):
            assign_parts(frame, config, 0, has_time=True)
        return
    parts = assign_parts(frame, config, 0, has_time=True).parts.to_list()
    spans = [[day for day, part in zip(days, parts, strict=True) if part == name] for name in PART_TYPE.categories]
    assert max(spans[0]) < min(spans[1]) <= max(spans[1]) < min(spans[2])
    options = [sum(day >= cut for day in days) for cut in sorted(set(days))[2:]]
    wanted = len(days) * test
    assert abs(len(spans[2]) - wanted) == pytest.approx(min(abs(size - wanted) for size in options))


def test_a_boundary_belongs_to_the_later_part_and_the_undated_to_train():
    config = SplitConfig(validation="2024-01-03", test=date(2024, 1, 5))
    done = assign_parts(log([None, *range(6)]), config, 0, has_time=True)
    assert done.parts.to_list() == ["train"] * 3 + ["validation"] * 2 + ["test"] * 2
    assert any("1 rows have no time" in told for told in done.warnings)


def test_an_instant_for_test_and_a_share_for_validation():
    bounds = find_boundaries(log(range(10))["time"], SplitConfig(validation=0.2, test="2024-01-09T00:00:00Z"))
    assert bounds == Boundaries(START + timedelta(days=6), START + timedelta(days=8))


def test_user_time_follows_the_ratio_rule_per_user():
    users = [user for user, size in {"a": 1, "b": 2, "c": 3, "d": 10, "e": 25}.items() for _ in range(size)]
    frame = log(list(range(len(users)))[::-1], users)
    done = assign_parts(frame, SplitConfig(kind="user_time"), 0, has_time=True)
    table = frame.with_columns(done.parts).group_by("user", "part").len().sort("user", "part")
    sizes = {user: [0, 0, 0] for user in "abcde"}
    for user, part, size in table.rows():
        sizes[user][list(PART_TYPE.categories).index(part)] = size
    assert sizes == {"a": [1, 0, 0], "b": [1, 0, 1], "c": [1, 1, 1], "d": [8, 1, 1], "e": [21, 2, 2]}
    assert "not by global time" in done.summary["label"]
    assert frame.with_columns(done.parts).filter(user="c").sort("time")["part"].to_list() == list(PART_TYPE.categories)


def test_random_is_seeded_exact_and_needs_no_time():
    config = SplitConfig(kind="random", validation=0.2, test=0.3)
    one, same, other = (assign_parts(log([None] * 100), config, seed, has_time=False) for seed in (1, 1, 2))
    assert counts(one) == (50, 20, 30)
    assert one.parts.equals(same.parts)
    assert not one.parts.equals(other.parts)


def test_without_time_the_default_falls_back_to_random_and_a_wish_is_refused():
    done = assign_parts(log([None] * 20), SplitConfig(), 1, has_time=False)
    assert done.kind is SplitKind.RANDOM
    assert "no time" in done.warnings[0]
    for kind in ("time", "user_time"):
        with pytest.raises(InputError, match="needs times"):
            assign_parts(log([None] * 20), SplitConfig(kind=kind), 1, has_time=False)


def test_column_keeps_the_data_and_makes_validation_of_the_end_of_train():
    config = SplitConfig(kind="column")
    frame = log(range(22), parts=["train"] * 20 + ["test"] * 2)
    done = assign_parts(frame, config, 0, has_time=True)
    assert done.parts.to_list() == ["train"] * 18 + ["validation"] * 2 + ["test"] * 2
    undated = assign_parts(frame, config, 0, has_time=False)
    assert counts(undated) == (18, 2, 2)
    own = log(range(3), parts=["test", "validation", "train"])
    kept = assign_parts(own, config, 0, has_time=True)
    assert kept.parts.equals(own["part"])
    assert len(kept.warnings) == 3
    assert "1 of 1 train rows" in kept.warnings[0]


@pytest.mark.parametrize(
    ("parts", "fault"),
    [(["train", "train", "train"], "the test part is empty"), (["train", None, "test"], "without a part")],
)
def test_column_without_test_or_with_gaps_is_refused(parts, fault):
    with pytest.raises(InputError, match=fault):
        assign_parts(log(range(3), parts=parts), SplitConfig(kind="column"), 0, has_time=True)


def test_every_empty_part_is_named_at_once():
    config = SplitConfig(validation="2030-01-01", test="2031-01-01")
    with pytest.raises(InputError) as caught:
        assign_parts(log(range(5)), config, 0, has_time=True)
    assert [problem.what.split()[1] for problem in caught.value.problems] == ["validation", "test"]


def test_a_planted_look_ahead_sets_off_the_check():
    frame = log([0, 1, 2, 3, 4, 5], users=["a", "a", "a", "b", "b", "b"])
    good = pl.Series(["train", "validation", "test"] * 2, dtype=PART_TYPE)
    assert check_no_future(good, frame, SplitKind.USER_TIME, has_time=True) == []
    with pytest.raises(InputError, match=r"train rows .* first validation row \(1 time\)"):
        check_no_future(good, frame, SplitKind.TIME, has_time=True)
    swapped = pl.Series(["train", "test", "validation"] * 2, dtype=PART_TYPE)
    with pytest.raises(InputError, match="validation rows"):
        check_no_future(swapped, frame, SplitKind.USER_TIME, has_time=True)
    assert len(check_no_future(swapped, frame, SplitKind.COLUMN, has_time=True)) == 3
    tie = pl.Series(["train", "validation", "test"], dtype=PART_TYPE)
    with pytest.raises(InputError):
        check_no_future(tie, log([0, 0, 1]), SplitKind.TIME, has_time=True)


def test_exposures_follow_the_events_of_their_log():
    exposures = log(range(40), users=["a", "b"] * 20)
    events = exposures.gather_every(4)
    for kind in ("time", "user_time", "random"):
        config = SplitConfig(kind=kind, validation=0.2, test=0.2)
        done = assign_parts(events, config, 3, has_time=True)
        parts = assign_exposures(exposures, events, done, config, 3)
        assert parts.gather_every(4).equals(done.parts)
        assert parts.len() == 40
        if kind == "time":
            assert parts.equals(apply_boundaries(exposures["time"], done.boundaries))
        if kind == "user_time":
            assert check_no_future(parts, exposures, SplitKind.USER_TIME, has_time=True) == []
            assert set(parts.filter(exposures["user"] == "b")) == {"train"}
    config = SplitConfig(kind="column")
    named = exposures.with_columns(pl.Series("part", ["train"] * 32 + ["test"] * 8, dtype=PART_TYPE))
    done = assign_parts(named.gather_every(4), config, 3, has_time=True)
    parts = assign_exposures(named, named.gather_every(4), done, config, 3)
    assert parts.gather_every(4).equals(done.parts)
    assert (parts == "test").equals(named["part"] == "test")


@pytest.mark.parametrize(
    "wrong",
    [
        {"validation": 0.0}, {"test": 1}, {"test": True}, {"validation": 0.6, "test": 0.4}, {"kind": "weekly"},
        {"kind": "random", "test": "2024-01-01"}, {"validation": "2024-02-01", "test": "2024-01-01"}, {"tset": 0.1},
        {"test": "soon"}, {"column": ""},
    ],
)  # fmt: skip
def test_a_wrong_config_is_refused(wrong):
    with pytest.raises(ValidationError):
        SplitConfig(**wrong)


def test_a_config_survives_json():
    config = SplitConfig(validation=0.2, test="2024-05-01T02:00:00+02:00")
    assert config.test == datetime(2024, 5, 1, tzinfo=UTC)
    assert SplitConfig(**config.model_dump(mode="json")) == config
