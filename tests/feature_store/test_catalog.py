from datetime import UTC, datetime, timedelta

import polars as pl

from feature_store.catalog import OPTIONAL_VIEWS, VIEWS, describe
from kgrec.columns import PART_TYPE
from kgrec.features.point_in_time import build_features
from kgrec.features.view import check_views


def test_the_catalog_is_sound_and_described_line_by_line():
    check_views([*VIEWS, *OPTIONAL_VIEWS])
    lines = describe().splitlines()
    assert len(lines) == 2 + sum(len(view.features) for view in VIEWS)
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    for view in VIEWS:
        assert view.owner
        assert any(line.startswith(f"| {view.name} | {', '.join(view.keys)} |") for line in lines)


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
    tables = build_features([*VIEWS, *OPTIONAL_VIEWS], log)
    assert tables.rows.height == rows
    assert tables.rows["user__rows_count"].to_list() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    starred = {view.name for view in (*VIEWS, *OPTIONAL_VIEWS) if any("*" in key for key in view.keys)}
    assert starred <= set(tables.left_out)
    assert not any("conversion" in name for name in tables.aggregates)
