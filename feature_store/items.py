"""How an item is received."""

from datetime import timedelta

from kgrec.features.derived import Derived, How
from kgrec.features.view import Count, DecayedCount, FeatureView, Of, Rate

OWNER = "recommendation"

ITEM = FeatureView(
    name="item",
    keys=("item_row",),
    features=(Count(), Rate(Of.CLICK), Rate(Of.CONVERSION_GIVEN_CLICK)),
    lookback=None,
    description="How often this item was shown, clicked, and converted after a click",
    owner=OWNER,
)
ITEM_LAST_DAY = FeatureView(
    name="item_last_day",
    keys=("item_row",),
    features=(Count(), Rate(Of.CLICK), Rate(Of.CONVERSION_GIVEN_CLICK)),
    lookback=timedelta(days=1),
    description="The same over the last 24 hours of the log: what is on the rise",
    owner=OWNER,
)
ITEM_CONTEXT = FeatureView(
    name="item_context",
    keys=("item_row", "context:*"),
    features=(Count(), Rate(Of.CLICK), Rate(Of.CONVERSION_GIVEN_CLICK)),
    lookback=None,
    description="How this item is received in this context",
    owner=OWNER,
)
ITEM_RECENTLY = FeatureView(
    name="item_recently",
    keys=("item_row",),
    features=(DecayedCount(timedelta(hours=6)), DecayedCount(timedelta(hours=6), Of.CLICK)),
    lookback=None,
    description="How much this item is shown and clicked just now",
    owner=OWNER,
)
ITEM_TREND = Derived(
    name="item_trend",
    how=How.RATIO,
    inputs=("item_last_day__click_rate", "item__click_rate"),
    description="Above 1: the last day went better for the item than all time; needs item and item_last_day",
    owner=OWNER,
)
