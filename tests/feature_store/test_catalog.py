import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from feature_store.catalog import OPTIONAL_VIEWS, VIEWS, describe
from kgrec.columns import PART_TYPE
from kgrec.features.declarations import check_declarations, node_views, split_declarations
from kgrec.features.point_in_time import build_features

ROOT = Path(__file__).parents[2]
EVERY = [*VIEWS, *OPTIONAL_VIEWS]


def test_the_page_of_features_is_what_the_declarations_say():
    render = runpy.run_path(str(ROOT / "docs" / "make_features.py"))["render"]
    assert (ROOT / "docs" / "features.md").read_text(encoding="utf-8") == render(), "run: python docs/make_features.py"


def test_the_catalog_is_sound_and_described_line_by_line():
    check_declarations(EVERY)
    lines = describe(EVERY).splitlines()
    views, derived = split_declarations(EVERY)
    assert len(lines) == 2 + sum(len(view.features) for view in [*views, *node_views(EVERY)]) + len(derived)
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    for one in EVERY:
        assert one.owner
        assert one.description
    for view in views:
        assert any(line.startswith(f"| {view.name} | {', '.join(view.keys)} |") for line in lines)
    assert any("6:00:00" in line and "item_recently" in line for line in lines)


def test_the_views_work_on_a_bare_log_and_name_what_it_lacks():
    rows = 9
    log = pl.DataFrame(
        {
            "user_row": [n % 2 for n in range(rows)],
            "item_row": [n % 3 for n in range(rows)],
            "time": [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(rows)],
            "click": [n % 2 == 0 for n in range(rows)],
            "part": pl.Series(["train"] * 5 + ["validation"] * 2 + ["test"] * 2, dtype=PART_TYPE),
        }
    )
    tables = build_features(EVERY, log)
    assert tables.rows.height == rows
    assert tables.rows["user__rows_count"].to_list() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    starred = {view.name for view in split_declarations(EVERY)[0] if any("*" in key for key in view.keys)}
    assert starred | {"user_did", "item_node"} <= set(tables.left_out)
    assert not any("conversion" in name for name in tables.aggregates)
    assert tables.rows["item_trend"].null_count() == 0
