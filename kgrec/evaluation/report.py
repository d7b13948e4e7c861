"""The report of a run for people: one self-contained HTML file, and the same as Markdown and JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import altair as alt
import jinja2
import vl_convert

from kgrec.artifacts import write_atomically
from kgrec.evaluation.report_details import alarm_sentences, by_length, detail_sections
from kgrec.evaluation.report_words import EXPLANATIONS, chance_words, decimals, plain_name, plain_text

Metrics = Mapping[str, float]

_HEADLINE: Final = ("ndcg", "recall", "mrr", "map", "hit", "precision", "r_precision")
_NOT_DRAWN: Final = ("epoch", "cosine", "correlation", "affinity")  # relations of tasks have a table
_LINES: Final = {
    "click": ("Click", "Will a shown item be clicked?"),
    "conversion": ("Conversion, given a click", "Will a clicked item be converted? Clicked rows only."),
    "click_and_conversion": ("Click and conversion", "Will a shown item be clicked and converted? All exposures."),
    "link": (
        "Missing links of the knowledge graph",
        "One end of a triple given: is the other guessed?",
    ),
}


@dataclass(frozen=True)
class Example:
    """What one user had last and what the model recommends: (title, score, reason) each, best first."""

    user: str
    history: Sequence[str]
    recommendations: Sequence[tuple[str, float, str]]


@dataclass(frozen=True)
class ReportData:
    """All that a report shows. What does not apply stays empty and leaves no trace in the report.

    metrics: {"validation": ..., "test": ...}, each as `kgrec run --json` prints them. baselines: name -> test ranking
    metrics. baseline_settings: name -> what validation chose. left_out: name -> why it is not there.
    intervals: 95 % over users of the model's ranking
    metrics. against: baseline -> metric, p, noise. data_card: section -> {label: value}.
    training: one mapping per epoch ("epoch" and figures). relations: how
    the tasks relate, as training summed it up ("names", a matrix a kind, "proposal").
    details: segments, fairness and more, as the stage `evaluate` keeps them.
    stages: name -> {"seconds": ..., "cached": ...}. promoted is None where no gate was asked.
    """

    name: str
    run_id: str
    version: str | None = None
    promoted: bool | None = None
    reasons: Sequence[str] = ()
    metrics: Mapping[str, Mapping[str, Metrics]] = field(default_factory=dict)
    baselines: Mapping[str, Metrics] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    against: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    baseline_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    data_card: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    training: Sequence[Mapping[str, float]] = ()
    relations: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    peak_rss_mb: float | None = None
    config_text: str = ""


def verdict(data: ReportData) -> str:
    """Return the run's result in a sentence: the model against the best baseline on the test part's NDCG.

    >>> test = {"test": {"ranking": {"ndcg@10": 0.131, "num_users": 9}}}
    >>> verdict(ReportData("shop", "r1", metrics=test, baselines={"ease": {"ndcg@10": 0.127}}))
    'The model ranks better than every baseline: NDCG@10 .131 against .127 of ease.'
    """
    ranking = data.metrics.get("test", {}).get("ranking", {})
    name = headline_metric(ranking)
    if name is None:
        link = data.metrics.get("test", {}).get("link", {})
        if "mrr" in link:
            return f"The model finds missing links with a mean reciprocal rank of {decimals(link['mrr'])}."
        return "The test part holds nothing to rank, so there is no verdict on ranking."
    own, label = ranking[name], plain_name(name)
    rivals = {rival: figures[name] for rival, figures in data.baselines.items() if name in figures}
    if not rivals:
        return f"The model reaches {label} {decimals(own)}; there is no baseline to compare it with."
    best = max(rivals, key=lambda rival: rivals[rival])
    figures = [decimals(own), decimals(rivals[best])]
    if figures[0] == figures[1] and own != rivals[best]:  # so near that rounding hides who is ahead
        figures = [repr(own), repr(rivals[best])]
    against = f"{label} {figures[0]} against {figures[1]} of {best}{_sureness(data, best, name)}"
    if own > rivals[best]:
        return f"The model ranks better than every baseline: {against}."
    if own == rivals[best]:
        return f"The model ranks no better than the best baseline: {against}."
    return f"The model ranks worse than the baseline {best}: {against}."


def _sureness(data: ReportData, baseline: str, metric: str) -> str:
    """Return whether the difference to a baseline is more than noise, in words; nothing where it was not tested."""
    found = data.against.get(baseline)
    if found is None or found["metric"] != metric:
        return ""
    words = "inside the noise" if found["noise"] else "more than noise"
    return f"; the difference is {words} ({chance_words(found['p'])}, paired test over users)"


def headline_metric(ranking: Metrics) -> str | None:
    """Return the metric that decides: NDCG at the shortest list there is, else recall and so on; None without any."""
    names = [name for name in ranking if name.partition("@")[0] in _HEADLINE]
    return min(names, key=_order_of_metrics, default=None)


def write_report(path: Path, data: ReportData) -> None:
    """Write `path` (HTML, nothing loaded from elsewhere, no script), and report.md and report.json beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page = _template().render(_page(data))
    write_atomically(path, page.encode())
    write_atomically(path.with_name("report.md"), as_markdown(data).encode())
    content = {"verdict": verdict(data), **asdict(data)}
    write_atomically(path.with_name("report.json"), (json.dumps(content, indent=1, default=str) + "\n").encode())


def comparison(data: ReportData) -> list[dict[str, Any]]:
    """Return one line per ranking metric: name, model, baselines by name, best (who), and difference.

    difference: the model's gain over the best baseline, relative to that one (0.1 = a tenth better); None without.
    """
    ranking = data.metrics.get("test", {}).get("ranking", {})
    lines: list[dict[str, Any]] = []
    for name in sorted((n for n in ranking if n.partition("@")[0] in _HEADLINE), key=_order_of_metrics):
        rivals = {rival: figures.get(name) for rival, figures in data.baselines.items()}
        known = [value for value in rivals.values() if value is not None]
        top = max(known, default=None)
        difference = (ranking[name] - top) / top if top else None
        lines.append(
            {"metric": name, "model": ranking[name], "baselines": rivals, "difference": difference}
            | {"best": max([ranking[name], *known]), "interval": data.intervals.get(name)}
        )
    return lines


def as_markdown(data: ReportData) -> str:
    """Return the report's core as Markdown: verdict, gate, alarms, comparison, all test metrics, data, left out."""
    lines = [f"# {plain_text(data.name)}", "", plain_text(verdict(data)), "", plain_text(_gate_sentence(data)), ""]
    lines += [f"- {plain_text(reason)}" for reason in data.reasons]
    for heading, told in (("Alarms", alarm_sentences(data.details)), ("Warnings", data.warnings)):
        lines += ["", f"## {heading}", "", *(f"- {plain_text(one)}" for one in told)] if told else []
    rows = comparison(data)
    if rows:
        header = ["test", "model", *data.baselines]
        lines += ["", *_markdown_row(header), "|" + "---|" * len(header)]
        for row in rows:
            figures = [row["model"], *row["baselines"].values()]
            interval = row["interval"]
            cells = ["" if x is None else f"**{decimals(x)}**" if x == row["best"] else decimals(x) for x in figures]
            cells[0] += f" ({decimals(interval[0])} to {decimals(interval[1])})" if interval else ""
            lines += _markdown_row([plain_name(row["metric"])], cells)
    for part, groups in data.metrics.items():
        for group, measured in groups.items():
            lines += ["", f"## {plain_text(part)}: {plain_text(group)}", ""]
            lines += [f"- {plain_name(name)}: {decimals(value)}" for name, value in measured.items()]
    for section, facts in data.data_card.items():
        lines += [
            "",
            f"## {plain_text(section)}",
            "",
            *(f"- {plain_text(k)}: {plain_text(decimals(v))}" for k, v in facts.items()),
        ]
    if data.left_out:
        lines += ["", "## Left out", "", *(f"- {plain_text(k)}: {plain_text(v)}" for k, v in data.left_out.items())]
    return "\n".join(lines) + "\n"


def _markdown_row(names: Sequence[str], cells: Sequence[str] = ()) -> list[str]:
    return ["| " + " | ".join([*(plain_text(name) for name in names), *cells]) + " |"]


def _order_of_metrics(name: str) -> tuple[int, int]:
    family, _, k = name.partition("@")
    return (int(k or 0), _HEADLINE.index(family))


def _gate_sentence(data: ReportData) -> str:
    version = f"Version {data.version}" if data.version else "This version"
    if data.promoted is None:
        return "No gate was asked, so nothing was promoted."
    return f"{version} was promoted and is served now." if data.promoted else f"{version} was not promoted."


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["figure"] = decimals
    environment.filters["plain_name"] = plain_name
    environment.filters["percent"] = lambda share: f"{share:+.1%}"
    environment.filters["by_length"] = by_length
    environment.filters["share"] = lambda share: f"{share:.1%}"
    return environment.get_template("report.html.jinja")


def _page(data: ReportData) -> dict[str, Any]:
    test = data.metrics.get("test", {})
    rows = comparison(data)
    used = {name.partition("@")[0] for figures in test.values() for name in figures}
    return {
        "data": data,
        "verdict": verdict(data),
        "gate": _gate_sentence(data),
        "rows": rows,
        "test": test,
        "validation": data.metrics.get("validation", {}),
        "lines": {key: words for key, words in _LINES.items() if key in test},
        "explanations": {plain_name(name): text for name, text in EXPLANATIONS.items() if name in used},
        "bars": _bars(rows[0], data.baselines) if rows and data.baselines else "",
        "details": detail_sections(data.details, svg),
        "curves": _curves(data.training),
    }


def svg(chart: Any) -> str:
    """Return an altair chart as SVG that is readable on white and on black."""
    text = "#7a7f87"  # readable on white and on black alike
    chart = chart.configure(background="transparent", font="sans-serif").configure_view(stroke=None)
    chart = chart.configure_axis(
        labelColor=text, titleColor=text, gridColor="#8884", domainColor=text, tickColor=text, labelFontSize=12
    )
    svg: str = vl_convert.vegalite_to_svg(chart.configure_title(color=text, anchor="start").to_dict())
    return svg


def _bars(row: Mapping[str, Any], baselines: Mapping[str, Metrics]) -> str:
    figures = {"model": row["model"], **{name: row["baselines"][name] for name in baselines}}
    values = [
        {"name": name, "value": value, "text": decimals(value)} for name, value in figures.items() if value is not None
    ]
    base = alt.Chart({"values": values}).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=200)),
        x=alt.X("value:Q", title=plain_name(row["metric"]), axis=alt.Axis(tickCount=5)),
    )
    colour = alt.condition("datum.name == 'model'", alt.value("#1f7a5c"), alt.value("#9aa5b1"))
    labels = base.mark_text(align="left", dx=4, color="#7a7f87", fontSize=12).encode(text="text:N")
    return svg((base.mark_bar().encode(color=colour) + labels).properties(width=480, height=alt.Step(26)))


def _curves(training: Sequence[Mapping[str, float]]) -> str:
    """Return one small line drawing per figure that training logged at two epochs or more."""
    drawn = (name for epoch in training for name in epoch if name.partition("/")[0] not in _NOT_DRAWN)
    names = list(dict.fromkeys(drawn))
    charts = []
    for name in names:
        values = [
            {"epoch": epoch.get("epoch", place), "value": epoch[name]}
            for place, epoch in enumerate(training, start=1)
            if isinstance(epoch.get(name), int | float) and not isinstance(epoch[name], bool)
        ]
        if len(values) < 2:
            continue
        line = alt.Chart({"values": values}).mark_line(point=len(values) < 40, color="#1f7a5c")
        encoded = line.encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d", tickCount=6)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
        )
        charts.append(encoded.properties(width=215, height=120, title=plain_name(name)))
    if not charts:
        return ""
    return svg(alt.concat(*charts, columns=3).resolve_scale(y="independent"))
