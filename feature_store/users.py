"""What a person tends to do."""

from datetime import timedelta

from kgrec.features.view import (
    EVENTS,
    Count,
    DecayedCount,
    DistinctCount,
    FeatureView,
    LastValues,
    Of,
    Rate,
    Recency,
)

OWNER = "recommendation"

USER = FeatureView(
    name="user",
    keys=("user_row",),
    features=(Count(), Rate(Of.CLICK), Rate(Of.CONVERSION_GIVEN_CLICK)),
    lookback=None,
    description="How much this person was shown, how readily they click, and convert after a click",
    owner=OWNER,
)
USER_LAST_DAY = FeatureView(
    name="user_last_day",
    keys=("user_row",),
    features=(Count(), Rate(Of.CLICK), Rate(Of.CONVERSION_GIVEN_CLICK), Recency()),
    lookback=timedelta(days=1),
    description="The same over the last 24 hours of the log, and how long ago the last row was",
    owner=OWNER,
)
USER_CONTEXT = FeatureView(
    name="user_context",
    keys=("user_row", "context:*"),
    features=(Count(), Rate(Of.CLICK), Rate(Of.CONVERSION_GIVEN_CLICK)),
    lookback=None,
    description="What this person does in this context (tab, device, ...)",
    owner=OWNER,
)
USER_RECENTLY = FeatureView(
    name="user_recently",
    keys=("user_row",),
    features=(DecayedCount(timedelta(hours=1)), DecayedCount(timedelta(hours=1), Of.CLICK), DistinctCount("item_row")),
    lookback=None,
    description="How busy this person is just now, and how many items they ever met",
    owner=OWNER,
)
USER_DID = FeatureView(
    name="user_did",
    keys=("user_row",),
    features=(Count(Of.CONVERSION), LastValues("item_row", 10, Of.CLICK)),
    lookback=None,
    description="Conversions and last clicked items, wherever they came from; forgotten after 90 days without any",
    owner=OWNER,
    ttl=timedelta(days=90),
    source=EVENTS,
)
