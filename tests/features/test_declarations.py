from datetime import timedelta

import pytest

from kgrec.errors import InputError
from kgrec.features.declarations import check_declarations, declare
from kgrec.features.derived import Derived, How
from kgrec.features.view import (
    Count,
    DecayedCount,
    DistinctCount,
    FeatureView,
    LastValues,
    Of,
    Rate,
    Source,
)

COUNT = (Count(),)


def view(name="v", keys=("user_row",), features=COUNT, lookback=None, **more):
    return FeatureView(name, keys, features, lookback, "what", "who", **more)


def derived(name, *inputs):
    return Derived(name, How.RATIO, inputs, "what", "who")


def test_bad_declarations_are_refused_together_with_their_remedies():
    with pytest.raises(InputError) as caught:
        declare(
            [
                lambda: view("past", lookback=-timedelta(days=1)),
                lambda: view("timeless", source=Source("rumours", (), None, "hearsay")),
                lambda: view("ok"),
                lambda: view("ok", ("item_row",)),
                lambda: view("odd", ("item_rwo",), (DistinctCount("device"),)),
                lambda: derived("a", "b", "ok__rows_count"),
                lambda: derived("b", "ok__rows_count", "a"),
                lambda: derived("lost", "ok__rows_cuont", "ok__rows_count"),
            ],
            context=["tab"],
        )
    found = {(problem.where.split("'")[1], problem.what) for problem in caught.value.problems}
    assert found == {
        ("past", "the window -1 day, 0:00:00 is not positive"),
        ("timeless", "its source 'rumours' has no time"),
        ("ok", "declared twice"),
        ("odd", "the source 'labelled' has no column 'item_rwo'"),
        ("odd", "the source 'labelled' has no column 'device'"),
        ("a", "a circle: a -> b -> a"),
        ("lost", "nothing makes its input 'ok__rows_cuont'"),
    }
    remedies = [problem.remedy for problem in caught.value.problems]
    assert all(remedies)
    assert "did you mean 'item_row'?" in remedies
    assert "did you mean 'ok__rows_count'?" in remedies


def test_without_a_known_context_a_plain_column_may_be_context_but_no_misspelling():
    check_declarations([view(keys=("device",))])
    with pytest.raises(InputError, match="did you mean 'user_row'"):
        check_declarations([view(keys=("user_rwo",))])
    with pytest.raises(InputError, match=r"interactions\.context"):
        check_declarations([view(keys=("device",))], context=["tab"])


def test_what_a_star_makes_may_be_an_input():
    starred = view("maker", ("item:*",), (Rate(Of.CLICK),))
    check_declarations([starred, derived("x", "maker_author__click_rate", "maker_tag__click_rate")])
    with pytest.raises(InputError, match="nothing makes"):
        check_declarations([starred, derived("x", "maker_author__click_count", "maker_tag__click_rate")])


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl": timedelta(0)}, {"features": (LastValues("item_row", 0),)}, {"features": (DecayedCount(timedelta(0)),)},
        {"features": (DecayedCount(timedelta(1)),), "lookback": timedelta(1)}, {"keys": ("graph:genre", "user_row")},
        {"keys": ("graph:*",), "features": (LastValues("item_row"),)},
    ],
)  # fmt: skip
def test_each_senseless_view_is_refused(wrong):
    with pytest.raises(InputError) as caught:
        view(**wrong)
    assert len(caught.value.problems) == 1
