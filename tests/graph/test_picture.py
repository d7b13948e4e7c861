from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

import kgrec
from kgrec import columns as c
from kgrec.errors import InputError
from kgrec.graph.paths import PathFinder
from kgrec.graph.picture import ENDS, KEPT_PER_RELATION, SHOWN_PER_RELATION, Surroundings, picture_page
from kgrec.graph.review import ACCEPTED
from kgrec.stages import RunResult
from tests.calling import as_json, call

EVIL = "</script><img src=x onerror=\"document.title='owned'\">{{DATA}}"
FILMS = 60
NAMES = [*(f"Film {at}" for at in range(FILMS)), "Comedy", EVIL, None, "Nora"]
COMEDY, EVIL_NODE, NAMELESS, NORA = range(FILMS, FILMS + 4)
TRIPLES = [
    *((film, 0, COMEDY) for film in range(FILMS)), (0, 1, NORA), (NORA, 2, 0), (0, 3, EVIL_NODE), (NORA, 2, 1),
    (0, 1, NAMELESS),
]  # fmt: skip


RELATIONS = ["film.genre", "film.film.directed_by", "director.film", "x#tag"]
SCHEMA = dict.fromkeys((c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW), c.ROW_TYPE)


@pytest.fixture
def surroundings() -> Surroundings:
    return drawn_from(pl.DataFrame(TRIPLES, schema=SCHEMA, orient="row"))


def tables(triples: pl.DataFrame, names=NAMES) -> tuple[pl.DataFrame, pl.DataFrame, list[str]]:
    ends = pl.concat([triples[c.HEAD_ROW], triples[c.TAIL_ROW]]).to_list()
    nodes = pl.DataFrame({
        "node": pl.Series(range(len(names)), dtype=c.ROW_TYPE), c.ID: [f"m.{at}" for at in range(len(names))],
        c.LABEL: names, c.NAME: [name or f"m.{at}" for at, name in enumerate(names)],
        "degree": pl.Series([ends.count(at) for at in range(len(names))], dtype=pl.Int32),
    })  # fmt: skip
    return triples, nodes, RELATIONS


def drawn_from(triples: pl.DataFrame, names=NAMES) -> Surroundings:
    return Surroundings(*tables(triples, names), FILMS)


def sourced(*extra: tuple[int, int, int]) -> pl.DataFrame:
    """The triples with their source, and some more that a person accepted."""
    every = pl.DataFrame([*TRIPLES, *extra], schema=SCHEMA, orient="row")
    return every.with_columns(pl.Series(c.SOURCE, ["file"] * len(TRIPLES) + [ACCEPTED] * len(extra)))


def words_of(branch):
    return {words: [inner.name for inner in found] for words, found, _ in branch.groups}


def test_neighbours_are_grouped_by_relation_once_each_and_named_ones_first(surroundings):
    root = surroundings.around(0, 1)
    assert words_of(root) == {"genre": ["Comedy"], "directed by": ["Nora", "m.62"], "tag": [EVIL]}
    assert root.degree == 5
    nora = surroundings.around(NORA, 2)
    assert words_of(nora) == {"film": ["Film 1", "Film 0"]}, "the inverse says nothing new"
    assert words_of(nora.groups[0][1][1])["tag"] == [EVIL]


def test_arrows_say_that_a_relation_points_inwards(surroundings):
    assert list(words_of(surroundings.around(COMEDY, 1))) == ["← genre"]


def test_hubs_are_limited_and_what_is_left_out_is_counted(surroundings):
    (group,) = surroundings.around(COMEDY, 1).groups
    assert len(group[1]) == KEPT_PER_RELATION
    assert group[2] == FILMS - KEPT_PER_RELATION
    inner = {words: (found, left) for words, found, left in surroundings.around(0, 2).groups[0][1][0].groups}
    found, left = inner["← genre"]
    assert (len(found), left) == (KEPT_PER_RELATION // 4, FILMS - 1 - KEPT_PER_RELATION // 4)


def test_an_entity_is_found_by_id_label_and_without_case(surroundings):
    assert [surroundings.find(name) for name in ("m.60", "Comedy", "nora")] == [COMEDY, COMEDY, NORA]
    with pytest.raises(InputError, match="did you mean 'Comedy'"):
        surroundings.find("Comedi")


def test_what_a_person_accepted_is_marked_unless_a_source_says_it_too():
    graph = drawn_from(sourced((2, 1, NORA), (0, 2, NORA)))
    (nora,) = [one for words, found, _ in graph.around(2, 1).groups for one in found if words == "directed by"]
    assert nora.inferred
    known = {one.name: one.inferred for _, found, _ in graph.around(0, 1).groups for one in found}
    assert known == {"Comedy": False, "Nora": False, "m.62": False, EVIL: False}
    assert graph.around(2, 1).as_dict()["groups"][0]["branches"][0]["inferred"] is True


def test_an_explanation_leads_from_the_item_to_the_history():
    triples = sourced((2, 1, NORA))
    graph, finder = drawn_from(triples), PathFinder(*tables(triples))
    root = graph.explanation(2, finder.paths(2, [0, 1, *range(3, 10)], limit=9))
    assert set(words_of(root)) == {"genre", "directed by"}
    by = {words: found for words, found, _ in root.groups}
    (comedy,), (nora,) = by["genre"], by["directed by"]
    assert (comedy.inferred, nora.inferred) == (False, True)
    assert [(words, len(found), left) for words, found, left in comedy.groups] == [("← genre", ENDS, 9 - ENDS)]
    assert sum(len(found) for _, found, _ in nora.groups) == 2, "films of the history that she made"
    assert {one.name for _, found, _ in nora.groups for one in found} == {"Film 0", "Film 1"}
    touching = graph.explanation(NORA, finder.paths(NORA, [0, 1]))
    assert {one.name for _, found, _ in touching.groups for one in found} >= {"Film 0", "Film 1"}
    (page,) = re.findall(r"OPEN = (\w+)", picture_page("Why", root, {}, all_open=True))
    assert page == "true"


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.addresses = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "onerror")]


def test_the_page_stands_alone_and_no_name_becomes_markup(surroundings):
    root = surroundings.around(0, 2)
    page = picture_page(EVIL, root, {"from": EVIL})
    elements = Elements()
    elements.feed(page)
    assert elements.addresses == ["data:,"]
    assert elements.tags.count("script") == 2
    assert "img" not in elements.tags
    assert not re.findall(r"@import|url\(", page)
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data[1]) == json.loads(json.dumps(root.as_dict()))
    assert page == picture_page(EVIL, root, {"from": EVIL})


def test_the_command_draws_and_says_what_it_drew(tiny: RunResult, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "picture.html"
    arguments = ("graph", "show", "--entity", "polka", "--hops", "2", "--out", out, "--workspace", tiny.workspace)
    answer = as_json(call(*arguments, "--json"))
    assert answer["entity"] == "polka"
    assert answer["origin"] == "version 1"
    assert answer["branches"] > 24
    assert Path(answer["file"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "polka" in call(*arguments).stdout
    assert call(*arguments[:3], "polkka", *arguments[4:]).exit_code == 2
    empty = call("graph", "show", "--entity", "x", "--out", out, "--workspace", tmp_path)
    assert (empty.exit_code, "has no graph yet" in empty.stderr) == (2, True)


def test_the_command_draws_why_a_user_gets_an_item(tiny: RunResult, tmp_path: Path) -> None:
    version = kgrec.load(tiny.workspace)
    item, out = version.recommend(["u00"], k=1)["item"][0], tmp_path / "why.html"
    arguments = ("graph", "show", "--user", "u00", "--item", item, "--out", out, "--workspace", tiny.workspace)
    answer = as_json(call(*arguments, "--json"))
    told = version.explain("u00", item)
    assert (answer["item"], answer["paths"], answer["origin"]) == (item, len(told["paths"]), "version 1")
    page = out.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert data["name"] == told["title"]
    first = {branch["name"] for group in data["groups"] for branch in group["branches"]}
    assert first == {path["edges"][0]["tail"] for path in told["paths"]}
    assert html.escape(told["reason"]) in page
    assert f"{len(told['paths'])} paths" in call(*arguments).stdout
    wrong = call("graph", "show", "--user", "u00", "--item", item + "0", "--out", out, "--workspace", tiny.workspace)
    assert (wrong.exit_code, "did you mean" in wrong.stderr) == (2, True)
    stranger = call("graph", "show", "--user", "nobody", "--item", item, "--out", out, "--workspace", tiny.workspace)
    assert (stranger.exit_code, "no path in the graph" in stranger.stderr) == (2, True)
    both = call(*arguments, "--entity", "polka")
    assert (both.exit_code, "either --entity, or" in both.stderr) == (2, True)


def test_the_report_lists_relations_and_coverage(tiny: RunResult) -> None:
    answer = as_json(call("graph", "report", "--workspace", tiny.workspace, "--json"))
    assert {row["id"]: row["triples"] for row in answer["relations"]} == {"genre": 96, "maker": 96}
    assert answer["facts"]["items_without_triples"] == 0
    text = call("graph", "report", "--workspace", tiny.workspace).stdout
    assert "│ genre  " in text
    assert "items without entity: 0" in text
    assert "hubs: blues (24)" in text


CHROMIUM = shutil.which("chromium")
PROBE = """<script>
const named = (text) => [...document.querySelectorAll("text")].filter((one) => one.textContent.startsWith(text));
const before = document.querySelectorAll(".name").length;
const cut = [...document.querySelectorAll("text")].filter((one) => {
  const box = one.getBoundingClientRect();
  return box.left < 0 || box.right > window.innerWidth;
}).length;
document.querySelector(".more")?.dispatchEvent(new Event("click"));
const after = document.querySelectorAll(".name").length;
const boxes = [...document.querySelectorAll("text")].map((one) => one.getBoundingClientRect());
let overlaps = 0;
for (let a = 0; a < boxes.length; a++) for (let b = 0; b < a; b++)
  if (Math.min(boxes[a].right, boxes[b].right) - Math.max(boxes[a].left, boxes[b].left) > 2 &&
      Math.min(boxes[a].bottom, boxes[b].bottom) - Math.max(boxes[a].top, boxes[b].top) > 6) overlaps++;
const texts = [...document.querySelectorAll("text")];
const smallest = Math.min(...texts.map((one) => parseFloat(getComputedStyle(one).fontSize)));
const wide = document.querySelector("svg").getBoundingClientRect().width;
const comedy = named("Comedy").length;
document.body.dataset.probe = JSON.stringify({ before, after, overlaps, smallest, wide, comedy, cut });
</script>"""


def in_browser(page: str, folder: Path) -> dict[str, float]:
    path = folder / "picture.html"
    path.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --window-size=1280,900"
    )
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={folder}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    assert "owned</title>" not in done.stdout
    return json.loads(re.search(r'data-probe="(.*?)"', done.stdout)[1].replace("&quot;", '"'))


@pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED IN A BROWSER: chromium is not installed")
def test_a_browser_draws_it_legibly_and_opens_more_on_a_click(surroundings, tmp_path):
    probe = in_browser(picture_page("Comedy", surroundings.around(COMEDY, 2), {"from": "a test"}), tmp_path)
    assert probe["comedy"] >= 1
    assert probe["before"] >= SHOWN_PER_RELATION
    assert probe["after"] > probe["before"]
    assert probe["overlaps"] == 0
    assert probe["smallest"] >= 12
    assert probe["wide"] <= 1280
    assert probe["cut"] == 0


@pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED IN A BROWSER: chromium is not installed")
@pytest.mark.parametrize("explained", [False, True])
def test_long_names_are_cut_short_and_not_at_the_edge_of_the_page(tmp_path, explained):
    names = [name and f"{name} and The Quest for a Title Without an End" for name in NAMES]
    triples = sourced(*((film, 1, NAMELESS) for film in range(20)))
    graph = drawn_from(triples, names)
    paths = PathFinder(*tables(triples, names)).paths(0, list(range(1, 60)), limit=6)
    root = graph.explanation(0, paths) if explained else graph.around(0, 2)
    probe = in_browser(picture_page(names[0], root, {}, all_open=explained), tmp_path)
    assert probe["cut"] == 0
    assert probe["before"] >= 7
    assert probe["overlaps"] == 0
