"""The report's second half: segments, lists beyond accuracy, fairness, debiased figures, reliability; as rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import altair as alt

from kgrec.evaluation.report_words import chance_words, decimals, plain_name

MODEL: Final = "model"
_RELATIONS_SHOWN: Final = 20
_BESIDE: Final = ("recall", "hit", "mrr")  # of a segment's figures, what stands beside NDCG; all are in report.json
_WORDS: Final = {
    "coverage": "share of the catalogue that stands in any list",
    "gini": "how unequally the catalogue is shown: 0 all items alike, 1 one item alone",
    "novelty": "surprise of the shown items in bits: rare ones surprise",
    "popularity_bias": "popularity of what is shown over that of what these users chose, less 1; 0 is true to them",
    "diversity": "how little two items of a list share in the graph; 1 is nothing",
    "distance_to_history": "the same between a list and what its user had",
    "serendipity": "share of the places that are a hit which popularity alone would not list",
    "miscalibration": "how far the tastes of a list are from those of its user, in bits; 0 is true to them",
    "ips_hits": "hits of a list, estimated as if every choice had been logged",
    "snips_recall": "recall, a rarely logged item weighing more",
    "snips_dcg": "the same, a hit counting more the higher it stands",
    "effective_size": "as how many choices the weights speak: few means a rough estimate",
    "exposure_gini": "how unequally providers are shown: 0 alike, 1 one alone",
    "exposure_against_catalogue": "share of exposure away from what the providers' shares of the catalogue would give",
    "exposure_against_relevance": "share of exposure away from what the test part's choices would give",
    "num_providers": "providers with an item in the catalogue",
}


def detail_sections(details: Mapping[str, Any], svg: Callable[[Any], str]) -> dict[str, Any]:
    """Return what the page shows of `kgrec.chain.details`, ready to be laid out; sections without content are empty."""
    fairness = details.get("fairness", {})
    return {
        "alarms": alarm_sentences(details),
        "beyond": _by_system(details.get("beyond_accuracy", {})),
        "debiased": _by_system(details.get("debiased", {})),
        "providers": _by_system(fairness.get("providers", {})),
        "largest_providers": fairness.get("largest_providers", []),
        "gaps": gap_sentences(fairness),
        "segments": _segment_rows(details.get("segments", [])),
        "segment_plot": _segment_plot(details.get("segments", []), svg),
        "reliability": _reliability_plot(details.get("reliability", {}), svg),
        "random_exposure": details.get("random_exposure", {}),
        "tower_segments": details.get("tower_segments", []),
        "links": details.get("links", [])[:_RELATIONS_SHOWN],
        "left_out": details.get("left_out", {}),
    }


def alarm_sentences(details: Mapping[str, Any]) -> list[str]:
    """Return each alarm in words: which, what was seen, how often, an example, what to do.

    >>> found = {"name": "overlap", "what": "a row in two parts", "count": 2, "example": "user 1", "remedy": "drop it"}
    >>> alarm_sentences({"alarms": [found]})
    ['overlap: a row in two parts (2; user 1). To do: drop it.']
    """
    return [
        f"{one['name']}: {one['what']} ({decimals(one['count'])}; {one['example']}). To do: {one['remedy']}."
        for one in details.get("alarms", [])
    ]


def _by_system(figures: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return a table with a row per metric and a column per system, the model first."""
    systems = [MODEL, *(name for name in figures if name != MODEL)] if MODEL in figures else list(figures)
    names = list(dict.fromkeys(name for system in systems for name in figures[system]))
    names.sort(key=lambda name: (int(name.partition("@")[2] or 0), list(_WORDS).index(name.partition("@")[0])))
    rows = [
        {
            "metric": plain_name(name),
            "words": _WORDS[name.partition("@")[0]],
            "values": [figures[s].get(name) for s in systems],
        }
        for name in names
    ]
    return {"systems": systems, "rows": rows} if rows else {}


def by_length(figures: Mapping[str, float]) -> dict[str, Any]:
    """Return figures at k as rows of a table with a column per k, and the other figures apart.

    >>> by_length({"recall@5": 0.1, "recall@9": 0.2, "num_users": 3})["rows"]
    [('Recall', [0.1, 0.2])]
    """
    ks = sorted({int(name.partition("@")[2]) for name in figures if "@" in name})
    families = list(dict.fromkeys(name.partition("@")[0] for name in figures if "@" in name))
    rows = [(plain_name(family), [figures.get(f"{family}@{k}") for k in ks]) for family in families]
    return {"ks": ks, "rows": rows, "others": {name: value for name, value in figures.items() if "@" not in name}}


def gap_sentences(fairness: Mapping[str, Any]) -> list[str]:
    """Return a sentence per column of users: who is served best and worst, and whether that is more than luck.

    >>> gap = {"lowest": {"group": "F", "mean": 0.1}, "highest": {"group": "M", "mean": 0.2}, "p": 0.2, "noise": True}
    >>> gap_sentences({"metric": "ndcg@10", "users": {"gender": gap}})
    ['gender: NDCG@10 from .100 (F) to .200 (M); a gap as wide comes by luck alone (p = .200).']
    """
    metric = plain_name(fairness.get("metric", ""))
    sentences = []
    for column, gap in fairness.get("users", {}).items():
        low, high = (f"{decimals(gap[end]['mean'])} ({gap[end]['group']})" for end in ("lowest", "highest"))
        luck = "comes by luck alone" if gap["noise"] else "is more than luck"
        sentences.append(f"{column}: {metric} from {low} to {high}; a gap as wide {luck} ({chance_words(gap['p'])}).")
    return sentences


def _segment_rows(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per group: the model's figures with intervals, and the best baseline by the last metric."""
    rows = []
    for line in lines:
        figures = line["figures"]
        metrics = sorted(figures[MODEL], reverse=True)
        rivals = {name: values for name, values in figures.items() if name != MODEL}
        decisive = next((name for name in metrics if name.startswith("ndcg")), metrics[0])
        best = max(rivals, key=lambda name: rivals[name][decisive], default=None)
        rows.append(
            {"segment": line["segment"], "group": line["group"], "num_users": line["num_users"],
             "metric": plain_name(decisive),
             "value": figures[MODEL][decisive], "interval": line.get("intervals", {}).get(decisive),
             "others": {plain_name(n): figures[MODEL][n] for n in metrics if n.partition("@")[0] in _BESIDE},
             "best": best, "best_value": rivals[best][decisive] if best else None}
        )  # fmt: skip
    return rows


def _segment_plot(lines: Sequence[Mapping[str, Any]], svg: Callable[[Any], str]) -> str:
    rows = _segment_rows(lines)
    if len(rows) < 2:
        return ""
    order = [f"{row['segment']}: {row['group']}" for row in rows]
    values = [
        {"group": name, "value": row["value"], "low": (row["interval"] or (row["value"],) * 2)[0],
         "high": (row["interval"] or (row["value"],) * 2)[1], "best": row["best_value"]}
        for name, row in zip(order, rows, strict=True)
    ]  # fmt: skip
    chart, metric = alt.Chart({"values": values}), rows[0]["metric"]
    y = alt.Y("group:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    bars = chart.mark_rule(color="#1f7a5c", strokeWidth=2).encode(y=y, x=alt.X("low:Q", title=metric), x2="high:Q")
    dots = chart.mark_point(filled=True, size=70, color="#1f7a5c", opacity=1).encode(y=y, x="value:Q")
    ticks = chart.mark_tick(color="#9aa5b1", thickness=3, size=14).encode(y=y, x="best:Q")
    return svg((ticks + bars + dots).properties(width=420, height=alt.Step(24)))


def _reliability_plot(tables: Mapping[str, Sequence[Mapping[str, float]]], svg: Callable[[Any], str]) -> str:
    """Return predicted against observed rates, a drawing per label; dots grow with the rows they stand for."""
    charts = []
    for group, lines in tables.items():
        line = alt.Chart({"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]}).mark_line(color="#9aa5b1", strokeDash=[4, 4])
        ends: dict[str, Any] = {"scale": alt.Scale(domain=[0, 1]), "axis": alt.Axis(tickCount=5)}
        diagonal = line.encode(x=alt.X("x:Q", title="predicted", **ends), y=alt.Y("y:Q", title="observed", **ends))
        values = [{"x": one["predicted"], "y": one["observed"], "rows": one["num_rows"]} for one in lines]
        dots = alt.Chart({"values": values}).mark_point(filled=True, color="#1f7a5c", opacity=0.9).encode(
            x="x:Q", y="y:Q", size=alt.Size("rows:Q", legend=None, scale=alt.Scale(range=[15, 220]))
        )  # fmt: skip
        charts.append((diagonal + dots).properties(width=200, height=200, title=plain_name(group)))
    return svg(alt.concat(*charts, columns=3)) if charts else ""
