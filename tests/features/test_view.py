from datetime import timedelta

import pytest

from kgrec.errors import InputError
from kgrec.features.view import Count, DistinctCount, FeatureView, Of, Rate, check_views, expand_views

COUNT = (Count(),)


def view(name="v", keys=("user_row",), features=COUNT, lookback=None):
    return FeatureView(name, keys, features, lookback, "what", "who")


def test_all_faults_of_a_view_come_at_once():
    with pytest.raises(InputError) as caught:
        view("two words", ("user_row", "user_row"), (Count(), Count(), Rate(Of.ROWS, -1.0)), timedelta(0))
    assert len(caught.value.problems) == 6
    assert all(problem.where == "feature view 'two words'" for problem in caught.value.problems)


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": ()}, {"keys": ("shop:x",)}, {"keys": ("item:*", "context:*")}, {"features": ()},
        {"features": (DistinctCount("item_row"),), "lookback": timedelta(1)}, {"lookback": -timedelta(1)},
    ],
)  # fmt: skip
def test_each_senseless_view_is_refused(wrong):
    with pytest.raises(InputError) as caught:
        view(**wrong)
    assert len(caught.value.problems) == 1


def test_views_of_one_name_are_refused():
    with pytest.raises(InputError, match="declared twice"):
        check_views([view("a"), view("b"), view("a", ("item_row",))])


def test_stars_become_one_view_per_column_and_the_rest_is_named():
    views = [view("each", ("user_row", "item:*")), view("ctx", ("context:*",)), view("plain", ("item:tag",)),
             view("gone", ("item:nothing",)), view("people", ("user:*",))]  # fmt: skip
    found, left_out = expand_views(
        views, ["item:tag", "item:author id", "tab"], ["tab"], ["item:tag", "item:author id", "tab"]
    )
    assert {one.name: one.keys for one in found} == {
        "each_tag": ("user_row", "item:tag"),
        "each_author_id": ("user_row", "item:author id"),
        "ctx_tab": ("tab",),
        "plain": ("item:tag",),
    }
    assert set(left_out) == {"gone", "people"}
    assert "item:nothing" in left_out["gone"]
