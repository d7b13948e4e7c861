"""The feature views that the pipelines compute, and a table of them for people."""

from feature_store.entities import CONTEXT, ITEM_FEATURE
from feature_store.items import ITEM, ITEM_CONTEXT, ITEM_LAST_DAY
from feature_store.user_items import USER_ITEM, USER_ITEM_FEATURE
from feature_store.users import USER, USER_CONTEXT, USER_LAST_DAY
from kgrec.features.view import Aggregation, FeatureView, Rate, Recency

VIEWS: tuple[FeatureView, ...] = (USER, USER_CONTEXT, ITEM, ITEM_LAST_DAY, ITEM_CONTEXT, USER_ITEM, CONTEXT)
"""What is computed by default: chosen on the validation part of KuaiRand-Pure, where gradient-boosted trees on these
views did as well as on all of them together."""

OPTIONAL_VIEWS: tuple[FeatureView, ...] = (USER_LAST_DAY, USER_ITEM_FEATURE, ITEM_FEATURE)
"""Views that earned nothing there, ready for a log on which they do (item features that many items share)."""


def describe(views: tuple[FeatureView, ...] = VIEWS) -> str:
    """Return a Markdown table: view, key, feature, window, default for an unseen key, owner, description."""
    lines = ["| view | key | feature | window | default | owner | description |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {view.name} | {', '.join(view.keys)} | {feature.name} | {view.lookback or 'all time'} | "
        f"{_default(feature)} | {view.owner} | {view.description} |"
        for view in views
        for feature in view.features
    ]
    return "\n".join(lines) + "\n"


def _default(feature: Aggregation) -> str:
    if isinstance(feature, Rate):
        return "global rate"
    return "missing" if isinstance(feature, Recency) else "0"
