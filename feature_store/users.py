"""What a person tends to do."""

from datetime import timedelta

from kgrec.features.view import Count, FeatureView, Of, Rate, Recency

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
