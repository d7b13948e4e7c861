from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgrec.errors import (
    ArtifactError,
    GateRefusedError,
    InputError,
    KgrecError,
    Problem,
    UnreachableError,
    WorkspaceBusyError,
    nearest,
)
from kgrec.seeds import derive_seed, numpy_generator

PURPOSE = st.lists(st.integers(-3, 3) | st.sampled_from(["a", "b", "1", ""]), max_size=3).map(tuple)


def test_a_problem_says_where_what_how_many_an_example_and_the_remedy():
    text = str(Problem("log.csv", "blank user", "fill it in", count=1234, example="line 3"))
    assert text == "log.csv: blank user (1,234 times)\n  example: line 3\n  remedy:  fill it in"
    assert str(Problem("a", "b", "c", count=1)) == "a: b (1 time)\n  remedy:  c"
    assert "(0 times)" in str(Problem("a", "b", "c", count=0))
    assert str(Problem("a", "b", "c")) == "a: b\n  remedy:  c"


def test_an_input_error_carries_every_problem():
    problems = [Problem(f"file {n}", "bad", "mend it") for n in range(3)]
    error = InputError(problems)
    assert error.problems == tuple(problems)
    assert str(error) == "\n".join(map(str, problems))
    assert InputError(problems[0]).problems == (problems[0],)
    with pytest.raises(ValueError, match="at least one problem"):
        InputError([])


def test_exit_statuses_are_those_of_the_contract():
    problem = Problem("a", "b", "c")
    raised = [
        KgrecError("x"),
        InputError(problem),
        GateRefusedError(["x"]),
        ArtifactError("x"),
        WorkspaceBusyError("x"),
    ]
    assert [error.exit_status for error in raised] == [1, 2, 3, 1, 1]
    assert all(isinstance(error, KgrecError) for error in raised)


def test_a_refusal_lists_its_reasons():
    error = GateRefusedError(["below popularity", "below version 2"])
    assert error.reasons == ("below popularity", "below version 2")
    assert "  - below popularity\n  - below version 2" in str(error)


def test_the_nearest_name_is_close_or_none():
    assert nearest("trainnig", ["training", "model", "gate"]) == "training"
    assert nearest("xyz", ["training", "model"]) is None
    assert nearest("a", []) is None
    assert nearest("epochs", (name for name in ["epochs"])) == "epochs"


@given(st.integers(0, 5), PURPOSE, st.integers(0, 5), PURPOSE)
def test_a_seed_belongs_to_one_seed_and_purpose(seed, purpose, other_seed, other_purpose):
    first, second = derive_seed(seed, *purpose), derive_seed(other_seed, *other_purpose)
    assert (first == second) == ((seed, purpose) == (other_seed, other_purpose))
    assert 0 <= first < 2**63


def test_text_and_number_are_different_purposes():
    assert derive_seed(7, 1) != derive_seed(7, "1")
    assert derive_seed(7, "ab") != derive_seed(7, "a", "b")


def test_streams_repeat_and_do_not_shift_each_other():
    first = numpy_generator(7, "split").random(5)
    numpy_generator(7, "negatives").random(100)
    np.testing.assert_array_equal(numpy_generator(7, "split").random(5), first)
    assert not np.array_equal(numpy_generator(7, "split", 1).random(5), first)
    assert not np.array_equal(numpy_generator(8, "split").random(5), first)


def test_seeds_are_the_same_in_another_process():
    script = "from kgrec.seeds import derive_seed; print(derive_seed(7, 'split', 3))"
    found = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": salt}
        ).stdout.strip()
        for salt in ("0", "1")
    }
    assert found == {str(derive_seed(7, "split", 3))}


@pytest.mark.parametrize("kind", [InputError, UnreachableError])
def test_problems_stay_whole_on_their_way_to_another_process(kind):
    problems = [Problem("log.csv", "blank item", "fill it in", 2, "user ann"), Problem("k", "no number", "give one")]
    there = pickle.loads(pickle.dumps(kind(problems)))
    assert (type(there), there.problems, str(there)) == (kind, tuple(problems), str(kind(problems)))


def test_a_refusal_keeps_its_reasons_on_its_way_to_another_process():
    there = pickle.loads(pickle.dumps(GateRefusedError(["worse than popularity", "too large"])))
    assert (there.reasons, str(there)) == (
        ("worse than popularity", "too large"), str(GateRefusedError(["worse than popularity", "too large"]))
    )  # fmt: skip
