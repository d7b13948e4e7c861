"""Write docs/features.md from the declarations in feature_store/.

Run it after a change there: python docs/make_features.py
"""

from __future__ import annotations

from pathlib import Path

from feature_store.catalog import OPTIONAL_VIEWS, VIEWS, describe
from kgrec.features.view import SOURCES

PAGE = Path(__file__).with_name("features.md")
_HEAD = """\
# Features

<!-- Written by docs/make_features.py from the declarations in feature_store/; do not edit by hand. -->

A feature is declared once, in [`feature_store/`](../feature_store), and the same declaration gives the rows that
training reads and the values that the service looks up. Every value is known strictly before its row. "Look-back": only
rows within it count. "Half-life": a row counts half after it. "Time to live": a key whose last row is older reads as
unseen. "Default": what an unseen key gets. A key with `*` stands for every column of its kind, one view each; a key
`graph:...` for all that the item is tied to in the knowledge graph, of which the mean (of recency the least) is taken.
What may be declared is in [`kgrec/features/aggregations.py`](../kgrec/features/aggregations.py),
[`view.py`](../kgrec/features/view.py), [`nodes.py`](../kgrec/features/nodes.py) and
[`derived.py`](../kgrec/features/derived.py).
"""


def render() -> str:
    """Return the whole page."""
    sources = [f"| {source.name} | {source.time} | {source.description} |" for source in SOURCES.values()]
    return "\n".join(
        [
            _HEAD,
            "## Sources\n\n| source | time | rows |\n|---|---|---|\n" + "\n".join(sources) + "\n",
            "## Computed by default\n\n" + describe(VIEWS),
            "## Optional\n\nTo use one, add it to `VIEWS` in `feature_store/catalog.py` or hand it to `kgrec.run`.\n\n"
            + describe(OPTIONAL_VIEWS),
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
