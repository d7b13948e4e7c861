"""What a person reads: the verdict, the tables, nothing that runs, nothing loaded from elsewhere."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kgrec.evaluation.report import Example, ReportData, as_markdown, comparison, decimals, verdict, write_report

EVIL = "<script>document.title='owned'</script>"
DATA = ReportData(
    name=f"shop {EVIL}",
    run_id="r-1",
    version="v1",
    promoted=False,
    reasons=[f"too close to the best baseline {EVIL}"],
    metrics={
        "validation": {"ranking": {"ndcg@10": 0.14, "num_users": 50}},
        "test": {
            "ranking": {"recall@10": 0.2, "ndcg@10": 0.131, "ndcg@20": 0.15, "num_users": 50},
            "ranking_cold": {"recall@10": 0.0098, "num_users": 4},
            "click": {"auc": 0.7212, "log_loss": 0.6, "ece": 0.01, "num_rows": 1000, "positive_rate": 0.4},
            "link": {"mrr": 0.348, "hits@10": 0.5, "num_triples": 77},
        },
    },
    baselines={"ease": {"ndcg@10": 0.127, "recall@10": 0.25}, f"mine {EVIL}": {"ndcg@10": 0.1}},
    baseline_settings={"ease": {"lambda": 100.0}},
    left_out={"conversion": f"no such labels {EVIL}"},
    data_card={"Log": {"events": 123456, "from": EVIL}},
    warnings=[f"84 items have no entity {EVIL}"],
    training=[{"epoch": n, "loss": 3.0 / n, EVIL: 1.0 * n} for n in range(1, 5)],
    examples=[Example(f"u1 {EVIL}", [f"Babe {EVIL}"], [(f"Fargo {EVIL}", 0.81, f"same director {EVIL}")])],
    stages={"train": {"seconds": 41.26, "cached": False}, "ingest": {"seconds": 0.0, "cached": True}},
    peak_rss_mb=812.4,
    config_text=f"name = '{EVIL}'",
)


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "xlink:href", "srcset", "action"}]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    write_report(path, DATA)
    return path


@pytest.fixture(scope="module")
def elements(written):
    parser = Elements()
    parser.feed(written.read_text(encoding="utf-8"))
    return parser


def test_user_text_is_inert_and_nothing_is_loaded(written, elements):
    page = written.read_text(encoding="utf-8")
    assert "script" not in elements.tags
    assert "<script" not in page
    assert set(elements.addresses) == {"data:,"}
    assert not re.findall(r"@import|url\((?!#)", page)
    assert "".join(elements.text).count(EVIL) >= 10, "the text itself has to be readable"


def test_the_page_shows_what_a_person_needs(elements):
    text = " ".join("".join(elements.text).split())
    for words in (
        "The model ranks better than every baseline: NDCG@10 .131 against .127 of ease.",
        "Version v1 was not promoted", "Cold items", "Missing links", "123,456", "+3.1%", "-20.0%", "41.3", "reused",
        "812 MB", "lambda 100", "same director",
    ):  # fmt: skip
        assert words in text
    assert elements.tags.count("svg") == 2


def test_markdown_and_json_stand_beside(written):
    markdown = written.with_name("report.md").read_text(encoding="utf-8")
    assert verdict(DATA) in markdown
    assert "<script" not in markdown
    assert "| NDCG@10 | **.131** | .127 | .100 |" in markdown
    content = json.loads(written.with_name("report.json").read_text(encoding="utf-8"))
    assert content["metrics"] == DATA.metrics
    assert content["verdict"] == verdict(DATA)


def test_the_same_data_gives_the_same_bytes(written, tmp_path):
    write_report(tmp_path / "report.html", DATA)
    for name in ("report.html", "report.md", "report.json"):
        assert (tmp_path / name).read_bytes() == written.with_name(name).read_bytes()


@pytest.mark.parametrize(
    ("own", "rivals", "start"),
    [
        (0.2, {"ease": {"ndcg@10": 0.3}, "knn": {"ndcg@10": 0.1}}, "The model ranks worse than the baseline ease"),
        (0.3, {"ease": {"ndcg@10": 0.3}}, "The model ranks no better than the best baseline"),
        (
            0.30001,
            {"ease": {"ndcg@10": 0.3}},
            "The model ranks better than every baseline: NDCG@10 0.30001 against 0.3",
        ),
        (0.3, {}, "The model reaches NDCG@10 .300; there is no baseline"),
    ],
)
def test_the_verdict_is_honest(own, rivals, start):
    test = {"test": {"ranking": {"ndcg@10": own, "recall@10": 0.9, "num_users": 1}}}
    assert verdict(ReportData("n", "r", metrics=test, baselines=rivals)).startswith(start)


def test_comparison_knows_the_best_and_the_difference():
    row = next(row for row in comparison(DATA) if row["metric"] == "recall@10")
    assert (row["best"], row["difference"]) == (0.25, pytest.approx(-0.2))
    assert [row["metric"] for row in comparison(DATA)] == ["ndcg@10", "recall@10", "ndcg@20"]
    assert comparison(DATA)[-1]["difference"] is None


def test_a_bare_run_leaves_no_empty_sections(tmp_path):
    bare = ReportData("umls", "r2", metrics={"test": {"link": {"mrr": 0.5, "num_triples": 3}}})
    write_report(tmp_path / "report.html", bare)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "mean reciprocal rank of .500" in page
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["What else the model predicts"]
    assert "No gate was asked" in as_markdown(bare)
    write_report(tmp_path / "report.html", replace(bare, metrics={}))
    assert "no verdict" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_figures_for_people():
    assert [decimals(x) for x in (0.5, -0.25, 0.00123, 1.0, 0, 7, 1234.0, 99.5, True, "x", None)] == [
        ".500", "-.250", ".00123", "1.000", "0", "7", "1,234", "99.5", "True", "x", "None",
    ]  # fmt: skip


@pytest.mark.skipif(not Path("/usr/bin/chromium").exists(), reason="NOT TESTED IN A BROWSER: chromium is not installed")
def test_a_browser_shows_it_without_an_error(written, tmp_path):
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    command = [shutil.which("chromium"), *flags.split(), f"--user-data-dir={tmp_path}", written.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "NDCG@10 .131 against .127 of ease." in done.stdout
    assert "owned</title>" not in done.stdout
    assert "CONSOLE" not in done.stderr


def test_how_the_tasks_relate_is_a_table_and_no_curve(tmp_path):
    relations = {
        "names": ["retrieval", EVIL],
        "gradient_cosine": [[1.0, -0.25], [-0.25, 1.0]],
        "loss_correlation": [[1.0, None], [None, 1.0]],
        "affinity": [[None, 0.01234], [-0.5, None]],
        "proposal": f"Train {EVIL} on its own.",
    }
    history = [{"epoch": n, "loss": 1.0 * n, "cosine/a/b": 0.1 * n, "affinity/a/b": 0.2} for n in range(3)]
    write_report(tmp_path / "report.html", replace(DATA, relations=relations, training=history))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "How the tasks relate" in page
    assert "-.250" in page
    assert ">-<" in page
    assert "cosine/a/b" not in page
    assert "<script" not in page
    write_report(tmp_path / "plain.html", DATA)
    assert "How the tasks relate" not in (tmp_path / "plain.html").read_text(encoding="utf-8")


def test_the_verdict_and_the_table_say_how_sure_they_are(tmp_path):
    found = {"metric": "ndcg@10", "p": 0.21, "noise": True}
    data = replace(DATA, baselines={"ease": DATA.baselines["ease"]}, against={"ease": found},
                   intervals={"ndcg@10": (0.1205, 0.1412)})  # fmt: skip
    assert "the difference is inside the noise (p = .210, paired test over users)" in verdict(data)
    surer = replace(data, against={"ease": {"metric": "ndcg@10", "p": 0.0001, "noise": False}})
    assert "the difference is more than noise (p < .001, paired test over users)" in verdict(surer)
    assert "noise" not in verdict(replace(data, against={}))
    assert "(.120 to .141)" in as_markdown(data)
    write_report(tmp_path / "report.html", data)
    assert ".120 to .141" in (tmp_path / "report.html").read_text()


def test_alarms_and_warnings_stand_in_every_form(tmp_path):
    alarm = {"name": "overlap", "what": f"a row twice {EVIL}", "count": 1234, "example": "user 1", "remedy": "drop it"}
    write_report(tmp_path / "report.html", replace(DATA, details={"alarms": [alarm]}))
    page, markdown, saved = ((tmp_path / f"report.{end}").read_text() for end in ("html", "md", "json"))
    for text in (page, markdown):
        assert "1,234; user 1). To do: drop it." in text
        assert "84 items have no entity" in text
        assert "<script" not in text
    assert markdown.index("## Alarms") < markdown.index("## Warnings") < markdown.index("| NDCG@10 |")
    assert json.loads(saved)["details"]["alarms"] == [alarm]
    assert "Alarms" not in as_markdown(DATA)
