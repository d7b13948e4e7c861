"""What a person and an item, or things like it, have to do with each other."""

from kgrec.features.view import Count, FeatureView, Of, Rate, Recency

OWNER = "recommendation"

USER_ITEM = FeatureView(
    name="user_item",
    keys=("user_row", "item_row"),
    features=(Count(), Count(Of.CLICK), Recency()),
    lookback=None,
    description="How often this person met this very item before, and when last",
    owner=OWNER,
)
USER_ITEM_FEATURE = FeatureView(
    name="user_item_feature",
    keys=("user_row", "item:*"),
    features=(Count(), Rate(Of.CLICK, strength=5.0)),
    lookback=None,
    description="How this person took to items of the same author, tag, ... (one view per categorical item feature)",
    owner=OWNER,
)
