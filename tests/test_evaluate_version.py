"""`kgrec evaluate --model`: a stored version judged by a table of relevant items."""

from __future__ import annotations

import polars as pl
import pytest

import kgrec
from kgrec.stages import RunResult
from tests.calling import as_json, call


@pytest.fixture(scope="module")
def truth(tiny: RunResult, tmp_path_factory):
    """The third item of each list, and one thing that the first user had before."""
    version = kgrec.load(tiny.workspace)
    users = version.users.entries.head(20).to_list()
    wanted = version.recommend(users, k=3).group_by("user", maintain_order=True).last().select("user", "item")
    had = pl.DataFrame({"user": [users[0]], "item": [version.history(users[0])["item"][0]]})
    path = tmp_path_factory.mktemp("truth") / "truth.csv"
    pl.concat([wanted, had]).write_csv(path)
    return path


def test_a_version_is_judged_by_its_own_lists(tiny: RunResult, truth) -> None:
    answer = as_json(call("evaluate", "--model", "promoted", "--truth", truth, "--k", "2,5", "--workspace",
                          tiny.workspace, "--json"))  # fmt: skip
    assert answer["version"] == tiny.released.version
    assert answer["num_users"] == 20
    assert answer["recall@2"] == 0.0
    assert answer["mrr@5"] == pytest.approx(1 / 3)
    assert answer["recall@5"] == pytest.approx((19 + 1 / 2) / 20)
    assert answer["num_pairs_already_seen"] == 1
    named = call("evaluate", "--model", tiny.released.version, "--truth", truth, "--workspace", tiny.workspace)
    assert named.exit_code == 0
    assert "recall@10" in named.stdout
    assert "1 relevant pairs are in the version's own log" in named.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("--model", "promoted"), 2, "--truth"),
        (("--model", "v99"), 2, "v99"),
        (("--model", "promoted", "--k", "ten"), 2, "--k"),
        (("--model", "promoted", "--recommendations", "x.csv"), 2, "--model goes with"),
    ],
)
def test_wrong_calls_are_told(tiny: RunResult, truth, arguments, status, told) -> None:
    more = () if told == "--truth" else ("--truth", truth)
    result = call("evaluate", *arguments, *more, "--workspace", tiny.workspace)
    assert result.exit_code == status
    assert told in result.output + str(result.exception)


def test_a_wrong_truth_is_refused_with_all_its_problems(tiny: RunResult, tmp_path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("who,item\na,b\n")
    result = call("evaluate", "--model", "promoted", "--truth", path, "--workspace", tiny.workspace)
    assert result.exit_code == 2
    assert "no column 'user'" in result.output
