"""A look at new data with the promoted version: what drifted since it was trained, and how good its answers still are.

Figures go out, people do not: nothing here names a user.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch

from kgrec import columns as c
from kgrec.artifacts import write_atomically
from kgrec.chain.context import Run
from kgrec.chain.fresh import Past, Rows, Window, now_rows, past_of, then_rows
from kgrec.chain.judge import PER_ROW
from kgrec.evaluation.classification import classification_metrics
from kgrec.evaluation.drift import (
    MonitorConfig,
    Signal,
    compare_numbers,
    compare_quality,
    compare_rates,
    compare_words,
    standing,
)
from kgrec.evaluation.monitor_report import write_monitor_page
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.ranking import Target, metrics_per_user
from kgrec.seeds import numpy_generator
from kgrec.serving.score import TOWERS
from kgrec.serving.standing import Standing
from kgrec.workspace import Workspace

HISTORY: Final = "history.jsonl"
_MOST_USERS: Final = 2000
_NO_FEATURES: Final = {c.USER, c.ITEM, c.TIME, c.CLICK, c.CONVERSION, c.PART}
_TABLES: Final = {c.USER: "user", c.ITEM: "item", "": "context"}


def look(run: Run, since: datetime, until: datetime | None) -> dict[str, Any]:
    """Compare the window with what the promoted version was trained on, keep the look and return it, JSON-able.

    The same window of the same version looked at again replaces the look before. InputError without a promoted
    version of this name, a log with times, or events in the window.
    """
    past = past_of(run)
    then = then_rows(past)
    now, earlier, window = now_rows(run, None if until is None else Window(since, until), since)
    trained = _before(then, window)
    config = run.config.monitor
    signals = [
        *_features(trained, now, config),
        *_unknown(past, then, now, config),
        *_labels(trained, now, config),
        *_towers(past, now, config),
        *_ranking(run, past, then, now, earlier),
        *_graph(then, now, config),
    ]
    folder = run.workspace.reports / "monitor" / run.config.name
    history = _history(folder, past.record.version, window)
    own = [line for line in history if line["version"] == past.record.version]
    were = set(own[-1]["alerts"]) if own else set[str]()
    alerts = standing(signals, [[Signal(**raw) for raw in line["signals"]] for line in reversed(own)], config, were)
    relations = [set(rows.triples[c.RELATION].unique()) for rows in (then, now)]
    answer = {
        "version": past.record.version, "name": run.config.name,
        "window": {"since": window.since.isoformat(), "until": window.until.isoformat(), "events": now.events.height,
                   "users": now.events[c.USER].n_unique(), "labelled_rows": now.labelled.height},
        "reference": {"events": trained.events.height, "labelled_rows": trained.labelled.height},
        "signals": [signal.as_dict() for signal in signals], "alerts": alerts,
        "raised": sorted(set(alerts) - were), "cleared": sorted(were - set(alerts)),
        "graph": {"relations_new": sorted(relations[1] - relations[0]),
                  "relations_gone": sorted(relations[0] - relations[1])},
    }  # fmt: skip
    page = _keep(folder, [*history, answer])
    return answer | {"report": str(shown(run.workspace, page))}


def shown(place: Workspace, path: Path) -> Path:
    """Return a path in the workspace as the user named it."""
    return place.shown / path.relative_to(place.root)


def _before(then: Rows, window: Window) -> Rows:
    """Return the train rows of the version, as far as they lie before the window."""
    kept = (pl.col(c.PART) == c.TRAIN) & (pl.col(c.TIME).is_null() | (pl.col(c.TIME) < window.since))
    return Rows(then.events.filter(kept), then.labelled.filter(kept), then.users, then.items, then.triples)


def _features(then: Rows, now: Rows, config: MonitorConfig) -> Iterator[Signal]:
    """Compare context columns row by row, and the declared features of the users and items that occur, each once."""
    columns: list[tuple[str, pl.Series, pl.Series]] = []
    for key, owner in _TABLES.items():
        before, fresh = (_occurring(rows, key) for rows in (then, now))
        for name in before.columns:
            if name not in _NO_FEATURES and name in fresh.columns:
                columns.append((f"{owner} {name}", before[name], fresh[name]))
    for name, old, new in columns:
        before_N, now_M = _numbers(old), _numbers(new)
        if before_N is not None and now_M is not None:
            yield from compare_numbers(name, before_N, now_M, config, 2 * len(columns))
        elif not old.dtype.is_nested():
            words = [series.cast(pl.String).to_list() for series in (old, new)]
            yield from compare_words(name, words[0], words[1], config, 2 * len(columns))


def _occurring(rows: Rows, key: str) -> pl.DataFrame:
    if not key:
        return rows.labelled
    table = rows.users if key == c.USER else rows.items
    return rows.events.select(key).unique(maintain_order=True).join(table, on=key, how="left", maintain_order="left")


def _numbers(series: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    """Return a column as numbers, missing as NaN; None where it holds anything else. Text may spell numbers."""
    if not series.dtype.is_numeric() and series.dtype != pl.String:
        return None
    values = series.cast(pl.Float64, strict=False)
    if values.null_count() > series.null_count() or values.null_count() == len(values):
        return None
    return values.fill_null(float("nan")).to_numpy()


def _unknown(past: Past, then: Rows, now: Rows, config: MonitorConfig) -> Iterator[Signal]:
    """Compare the share of events of ids that the version does not know with the same share in its own test part."""
    test = then.events.filter(pl.col(c.PART) == c.TEST)
    before_test = then.events.filter(pl.col(c.PART) != c.TEST)
    for key, known in ((c.USER, past.version.users), (c.ITEM, past.version.items)):
        old = int((~test[key].is_in(before_test[key].unique().implode())).sum())
        new = int((~now.events[key].is_in(known.entries.implode())).sum())
        yield from compare_rates(f"unknown {key}s", "unknown", (old, test.height), (new, now.events.height),
                                 config.unknown, config, relative=False)  # fmt: skip


def _labels(then: Rows, now: Rows, config: MonitorConfig) -> Iterator[Signal]:
    """Compare how often rows were clicked, and clicked rows converted."""
    for label in (c.CLICK, c.CONVERSION):
        counts = []
        for rows in (then.labelled, now.labelled):
            asked = rows.filter(c.CLICK) if label == c.CONVERSION and c.CLICK in rows.columns else rows
            counts.append((int(asked[label].sum()), asked.height) if label in asked.columns else (0, 0))
        if counts[0][0] < counts[0][1]:  # without impressions every row is a click
            old, new = counts
            yield from compare_rates(f"{label} rate", "label", old, new, config.label_change, config, relative=True)


def _towers(past: Past, now: Rows, config: MonitorConfig) -> Iterator[Signal]:
    """Compare the towers' probabilities with those on the test part, and with the fresh labels."""
    if not past.version.artifact.has(TOWERS) or not past.evaluated.has(PER_ROW) or now.labelled.is_empty():
        return
    judged = pl.read_parquet(past.evaluated.file(PER_ROW))
    scored = past.version.score(now.labelled.select(pl.exclude(c.CLICK, c.CONVERSION)))
    clicked = pl.lit(value=True) if c.CLICK not in now.labelled.columns else now.labelled[c.CLICK]
    for label in (c.CLICK, c.CONVERSION):
        before = judged.filter(pl.col(c.GROUP) == label)
        if label not in scored.columns or before.is_empty() or label not in now.labelled.columns:
            continue
        table = pl.DataFrame({c.PROBABILITY: scored[label], c.LABEL: now.labelled[label]})
        table = table.filter(clicked) if label == c.CONVERSION else table
        chance, truth = table[c.PROBABILITY].to_numpy(), table[c.LABEL].cast(pl.Float64).to_numpy()
        yield from compare_numbers(f"score {label}", before[c.PROBABILITY].to_numpy(), chance, config, 4, "score")
        if len(chance):
            yield _calibration(label, past.record.metrics.get(label, {}).get("ece"), chance, truth, config)


def _calibration(label: str, before: float | None, chance: Any, truth: Any, config: MonitorConfig) -> Signal:
    """Return the calibration error on fresh labels; tested by the number of hits that the probabilities expect."""
    ece = classification_metrics(chance, truth)["ece"]
    spread = float(np.sqrt((chance * (1 - chance)).sum()))
    off = abs(float(truth.sum() - chance.sum())) / spread if spread else 0.0
    p = float(2 * (1 - torch.special.ndtr(torch.tensor(off, dtype=torch.float64))))
    above = ece > config.ece and p < config.significance and len(chance) >= config.least_rows
    return Signal(f"calibration {label}", "calibration", ece, config.ece, above, len(chance), p, before, ece)


def _ranking(run: Run, past: Past, then: Rows, now: Rows, earlier: pl.DataFrame) -> Iterator[Signal]:
    """Ask the version for lists as the service would, and judge them by what the users then took and had not before."""
    config, version, metric = run.config.monitor, past.version, run.config.gate.metric
    k = int(metric.partition("@")[2])
    on_target = c.CONVERSION if run.config.evaluation.target is Target.CONVERSION else c.CLICK
    taken = now.events.filter(pl.col(on_target) | pl.col(c.CONVERSION)).select(c.USER, c.ITEM).unique()
    taken = taken.join(earlier.select(c.USER, c.ITEM), on=[c.USER, c.ITEM], how="anti").sort(c.USER, c.ITEM)
    users = _sample(taken[c.USER].unique().sort(), run.config.seed)
    tested = _sample(then.events.filter(pl.col(c.PART) == c.TEST)[c.USER].unique().sort(), run.config.seed)
    lists_BK, scores = _lists(past, users, k)
    yield from compare_numbers("score first item", _lists(past, tested, k)[1], scores, config, 4, "score")
    if users.is_empty():
        return
    places = {user: place for place, user in enumerate(users)}
    taken = taken.filter(pl.col(c.USER).is_in(users.implode()))
    strange = len(version.items)  # a column of its own for each item that the version does not know: never a hit
    columns = version.items.rows(taken[c.ITEM]).cast(pl.Int64)
    columns = pl.select(pl.coalesce(columns, pl.int_range(strange, strange + taken.height))).to_series()
    rows = [places[user] for user in taken[c.USER]]
    truth = Pairs.of(rows, columns.to_numpy().copy(), len(users), strange + taken.height)
    figures = metrics_per_user(torch.as_tensor(lists_BK), truth, (k,))
    test = past.record.metrics.get("ranking", {}).get(metric, 0.0)
    yield from compare_quality(f"ranking {metric}", float(test), figures[metric], config)


def _lists(past: Past, users: pl.Series, k: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[float]]:
    """Return the top k rows of each user, -1 where there are fewer, and the first score of those with a vector."""
    lists_BK = np.full((len(users), k), -1, dtype=np.int64)
    scores = []
    for place, user in enumerate(users):
        asked = past.version.ask(user)
        rows, found = past.version.top(asked, k)
        lists_BK[place, : len(rows)] = rows
        if asked.standing is Standing.TRAINED and len(rows):
            scores.append(float(found[0]))
    return lists_BK, scores


def _sample(users: pl.Series, seed: int) -> pl.Series:
    if len(users) <= _MOST_USERS:
        return users
    chosen = numpy_generator(seed, "monitor").choice(len(users), _MOST_USERS, replace=False)
    return users.gather(np.sort(chosen))


def _graph(then: Rows, now: Rows, config: MonitorConfig) -> Iterator[Signal]:
    """Count the triples that came or went, as a share of those there were."""
    before, fresh = then.triples.unique(), now.triples.unique()
    if before.is_empty() and fresh.is_empty():
        return
    same = fresh.join(before, on=fresh.columns, how="semi").height
    share = (before.height + fresh.height - 2 * same) / max(before.height, 1)
    yield Signal("graph triples", "graph", share, config.graph_change, share > config.graph_change, fresh.height,
                 None, float(before.height), float(fresh.height))  # fmt: skip


def _history(folder: Path, version: str, window: Window) -> list[Mapping[str, Any]]:
    """Return the looks before, oldest first, without one at the same window with the same version."""
    path = folder / HISTORY
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    same = {"since": window.since.isoformat(), "until": window.until.isoformat()}
    return [
        line for line in lines if line["version"] != version or {key: line["window"][key] for key in same} != same
    ]  # fmt: skip


def _keep(folder: Path, history: list[Mapping[str, Any]]) -> Path:
    """Write the history and the page of the last look; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / HISTORY, "".join(json.dumps(line) + "\n" for line in history).encode())
    write_atomically(folder / "report.json", (json.dumps(history[-1], indent=1) + "\n").encode())
    write_monitor_page(folder / "report.html", history, datetime.now(UTC))
    return folder / "report.html"
