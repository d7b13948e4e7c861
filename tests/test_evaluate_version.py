"""`kgrec evaluate --model`: a stored version judged by a table of relevant items."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import kgrec
from kgrec.stages import RunResult
from tests import worlds
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
        ((worlds.TINY, "--model", "promoted"), 2, "--model goes with"),
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


def test_a_version_on_its_own_config_has_the_figures_of_its_run(tiny: RunResult, tiny_copy: Path) -> None:
    arguments = ("evaluate", worlds.TINY, "--model", "1", "--workspace", tiny_copy)
    answer = as_json(call(*arguments, "--json"))
    assert set(answer) == {"version", "metrics", "num_pairs_trained_on"}
    assert (answer["version"], answer["num_pairs_trained_on"]) == ("1", 0)
    expected = tiny.metrics["test"]
    assert set(answer["metrics"]["test"]) == {"ranking", "ranking_cold"}
    for group, figures in answer["metrics"]["test"].items():
        assert figures == pytest.approx(expected[group], abs=1e-9), group
    plain = call(*arguments)
    assert plain.exit_code == 0
    assert f"{expected['ranking']['recall@5']:.6g}" in plain.stdout


def test_a_version_that_was_trained_on_the_test_part_is_told_so(tiny_copy: Path) -> None:
    """A later test part would be honest; one that begins inside the train part of the version is not."""
    early = ("--set", 'split.test="2023-11-20"', "--set", 'split.validation="2023-11-18"')
    result = call("evaluate", worlds.TINY, "--model", "promoted", *early, "--workspace", tiny_copy, "--json")
    assert result.exit_code == 0, result.output
    answer = as_json(result)
    assert answer["num_pairs_trained_on"] > 900
    assert "the figures are no test of it" in result.stderr


@pytest.mark.usefixtures("without_prefect")
def test_evaluating_a_config_gives_and_prints_its_figures(tiny: RunResult, tiny_copy: Path) -> None:
    result = call("evaluate", worlds.TINY, "--workspace", tiny_copy, "--json")
    assert result.exit_code == 0, result.stderr
    answer = as_json(result)
    assert (answer["stage"], answer["stages"]["evaluate"]["cached"]) == ("evaluate", True)
    whole = tiny.as_dict()
    for key in ("metrics", "baselines", "evaluation"):
        assert answer[key] == whole[key]
    plain = call("evaluate", worlds.TINY, "--workspace", tiny_copy)
    assert f"{whole['metrics']['test']['ranking']['recall@5']:.4f}" in plain.stdout
    assert "graph_kernel" in plain.stdout
    assert "ALARM" not in plain.stdout
