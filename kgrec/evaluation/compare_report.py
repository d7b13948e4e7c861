"""The report of a comparison: one HTML file that loads nothing, and the same as Markdown and JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import jinja2

from kgrec.artifacts import write_atomically
from kgrec.evaluation.compare_words import GROUPS
from kgrec.evaluation.report import svg
from kgrec.evaluation.report_words import decimals, plain_name, plain_text

Lines = Sequence[Mapping[str, Any]]


def write_comparison(path: Path, answer: Mapping[str, Any]) -> None:
    """Write `path` (HTML), and report.md and report.json beside it. answer: what `kgrec compare --json` prints."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page = _template().render(answer=answer, tables=level_tables(answer), chart=_chart(answer), groups=GROUPS)
    write_atomically(path, page.encode())
    write_atomically(path.with_name("report.md"), as_markdown(answer).encode())
    write_atomically(path.with_name("report.json"), (json.dumps(answer, indent=1) + "\n").encode())


def level_tables(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one table a group of figures: words, num_units, metrics, and (system, cells) rows, None where absent."""
    systems = {**{name: arm["test"] for name, arm in answer["arms"].items()}, **answer["baselines"]}
    tables = []
    for group, words in GROUPS.items():
        having = {name: test[group] for name, test in systems.items() if group in test}
        if not having:
            continue
        metrics = list(dict.fromkeys(metric for test in having.values() for metric in test if metric != "num_units"))
        rows = [(name, [test.get(metric) for metric in metrics]) for name, test in having.items()]
        units = next(iter(having.values()))["num_units"]
        tables.append({"group": group, "words": words, "num_units": units, "metrics": metrics, "rows": rows})
    return tables


def as_markdown(answer: Mapping[str, Any]) -> str:
    """Return the verdicts, the figures of every arm and all differences as Markdown."""
    seeds = ", ".join(str(seed) for seed in answer["seeds"])
    lines = [f"# {plain_text(answer['name'])}: comparison", "", f"Seeds {seeds}; reference {answer['reference']}.", ""]
    lines += [f"- {plain_text(sentence)}" for sentence in answer["verdicts"]]
    for table in level_tables(answer):
        lines += ["", f"## {table['words'][0].upper()}{table['words'][1:]} ({table['num_units']:,} units)", ""]
        lines += [_row(["", *(plain_name(metric) for metric in table["metrics"])])]
        lines += ["|" + "---|" * (1 + len(table["metrics"]))]
        lines += [_row([name, *(_cell(cell) for cell in cells)]) for name, cells in table["rows"]]
    for title, key in (("Differences", "differences"), ("By segment", "segments"),
                       ("Baselines against the reference", "baseline_differences")):  # fmt: skip
        if answer[key]:
            lines += ["", f"## {title}", "", _row(["", "metric", "segment", "difference", "95 %", "p, Holm", ""])]
            lines += ["|" + "---|" * 7, *(_row(_cells(line)) for line in answer[key])]
    return "\n".join(lines) + "\n"


def signed(value: float) -> str:
    """Return a difference for people.

    >>> signed(0.0123), signed(-0.5)
    ('+.012', '-.500')
    """
    text = decimals(float(value))
    return text if value <= 0 else f"+{text}"


def chance(p: float) -> str:
    """Return a p-value for people."""
    return "< .001" if p < 0.001 else decimals(round(p, 3))


def _cells(line: Mapping[str, Any]) -> list[str]:
    low, high = line["interval"]
    metric = f"{GROUPS[line['group']]}: {plain_name(line['metric'])}"
    return [line["arm"], metric, line.get("segment", "all"), signed(line["difference"]),
            f"{signed(low)} to {signed(high)}", chance(line["p_holm"]), line["outcome"]]  # fmt: skip


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    low, high = found["interval"]
    return f"{decimals(found['mean'])} ({decimals(low)} to {decimals(high)})"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(plain_text(cell) for cell in cells) + " |"


def _chart(answer: Mapping[str, Any]) -> str:
    """Return a dot and its interval for each difference in NDCG, recall of cold items, AUC and MRR of links."""
    k = min((int(line["metric"].partition("@")[2] or 0) for line in answer["differences"] if "@" in line["metric"]),
            default=0)  # fmt: skip
    wanted = {("ranking", f"ndcg@{k}"), ("ranking_cold", f"recall@{k}"), ("link", "mrr")}
    values = [
        {"arm": line["arm"], "low": line["interval"][0], "high": line["interval"][1], "difference": line["difference"],
         "outcome": line["outcome"], "figure": f"{GROUPS[line['group']]}: {plain_name(line['metric'])}"}
        for line in answer["differences"] if (line["group"], line["metric"]) in wanted or line["metric"] == "auc"
    ]  # fmt: skip
    if not values:
        return ""
    colour = alt.Color(
        "outcome:N", title=None,
        scale=alt.Scale(domain=["better", "worse", "inside the noise"], range=["#1f7a5c", "#b3452c", "#9aa5b1"]),
    )  # fmt: skip
    base = alt.Chart().encode(y=alt.Y("arm:N", sort=None, title=None), color=colour)
    axis = alt.X("low:Q", title=f"difference to {answer['reference']}", axis=alt.Axis(tickCount=5))
    whisker = base.mark_rule(strokeWidth=2).encode(x=axis, x2="high:Q")
    dot = base.mark_point(filled=True, size=60).encode(x="difference:Q")
    zero = alt.Chart().mark_rule(color="#7a7f87", strokeDash=[3, 3]).encode(x=alt.datum(0))
    layers = alt.layer(zero, whisker, dot, data={"values": values}).properties(width=420, height=alt.Step(24))
    title = alt.Header(labelAngle=0, labelAnchor="start", labelOrient="top", labelColor="#7a7f87")
    rows = layers.facet(row=alt.Row("figure:N", title=None, sort=None, header=title))
    return svg(rows.resolve_scale(x="independent"))


def _template() -> jinja2.Template:
    source = Path(__file__).with_name("compare.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"figure": decimals, "plain_name": plain_name, "signed": signed, "chance": chance}
    return environment.from_string(source)
