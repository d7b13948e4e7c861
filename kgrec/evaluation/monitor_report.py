"""The page of a monitor: the last look in a table, and how each signal moved over the looks before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import jinja2

from kgrec.artifacts import write_atomically

_WIDTH: Final = 120
_HEIGHT: Final = 28
_SHOWN: Final = 30


def write_monitor_page(path: Path, history: Sequence[Mapping[str, Any]], written: datetime) -> None:
    """Write the page, one HTML file that loads nothing. history: looks as `kgrec monitor` prints them, oldest first."""
    last = history[-1]
    own = [look for look in history if look["version"] == last["version"]][-_SHOWN:]
    rows = [
        {**signal, "alert": signal["name"] in last["alerts"], "trend": trend(own, signal["name"])}
        for signal in last["signals"]
    ]
    rows.sort(key=lambda row: (not row["alert"], -row["effect"] / row["threshold"]))
    page = _template().render(
        look=last, rows=rows, history=list(reversed(history[-_SHOWN:])), width=_WIDTH, height=_HEIGHT,
        written=written.isoformat("T", "minutes"), line=_height(1.0, 2.0),
    )  # fmt: skip
    write_atomically(path, page.encode())


def trend(history: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return the points of an SVG polyline: a signal's effect as a share of its threshold, 2 at the top, by look.

    >>> trend([{"signals": [{"name": "x", "effect": 0.0, "threshold": 1.0}]}], "x")
    '0.0,27.0'
    """
    found = [signal for look in history for signal in look["signals"] if signal["name"] == name]
    step = _WIDTH / max(len(found) - 1, 1)
    heights = [_height(signal["effect"] / signal["threshold"], 2.0) for signal in found]
    return " ".join(f"{at * step:.1f},{height:.1f}" for at, height in enumerate(heights))


def _height(share: float, most: float) -> float:
    return 1 + (_HEIGHT - 2) * (1 - min(share, most) / most)


def _template() -> jinja2.Template:
    source = Path(__file__).with_name("monitor.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(source)
