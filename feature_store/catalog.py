"""The feature views that the pipelines compute, and a table of them for people."""

from collections.abc import Sequence

from feature_store.entities import CONTEXT, ITEM_FEATURE, ITEM_NEIGHBOURS, ITEM_NODE
from feature_store.items import ITEM, ITEM_CONTEXT, ITEM_LAST_DAY, ITEM_RECENTLY, ITEM_TREND
from feature_store.user_items import USER_ITEM, USER_ITEM_FEATURE
from feature_store.users import USER, USER_CONTEXT, USER_DID, USER_LAST_DAY, USER_RECENTLY
from kgrec.features.aggregations import Aggregation, DecayedCount, LastValues, Rate, Recency, kind_of
from kgrec.features.declarations import Declaration, node_views, split_declarations
from kgrec.features.nodes import kind_of_node
from kgrec.features.view import FeatureView

VIEWS: tuple[Declaration, ...] = (USER, USER_CONTEXT, ITEM, ITEM_LAST_DAY, ITEM_CONTEXT, USER_ITEM, CONTEXT)
"""What is computed by default: chosen on the validation part of KuaiRand-Pure, where gradient-boosted trees on these
views did as well as on all of them together."""

OPTIONAL_VIEWS: tuple[Declaration, ...] = (
    USER_LAST_DAY, USER_RECENTLY, USER_DID, ITEM_RECENTLY, ITEM_TREND, ITEM_NEIGHBOURS, ITEM_NODE, USER_ITEM_FEATURE,
    ITEM_FEATURE,
)  # fmt: skip
"""Ready for a log on which they earn something; on KuaiRand-Pure the last-day view of users and those over item
features did not, and the others are not measured there yet."""

_HEAD = ("view", "key", "feature", "kind", "source", "look-back", "half-life", "time to live", "default", "owner",
         "description")  # fmt: skip


def describe(declared: Sequence[Declaration] = VIEWS) -> str:
    """Return a Markdown table with a line for each feature."""
    views, derived = split_declarations(declared)
    lines = [_line(_HEAD), "|---" * len(_HEAD) + "|"]
    lines += [_line(_cells(view, feature)) for view in views for feature in view.features]
    for node in node_views(declared):
        for feature in node.features:
            name = " to ".join(dict.fromkeys((feature.names[0], feature.names[-1])))
            told = (node.name, "item_row", name, kind_of_node(feature), "triples", "all time", "-", "-", "0")
            lines.append(_line((*told, node.owner, node.description)))
    for one in derived:
        made = f"{one.how} of `{one.inputs[0]}` and `{one.inputs[1]}`"
        lines.append(_line(("-", "-", one.name, made, "-", "-", "-", "-", "missing", one.owner, one.description)))
    return "\n".join(lines) + "\n"


def _cells(view: FeatureView, feature: Aggregation) -> tuple[str, ...]:
    half_life = str(feature.half_life) if isinstance(feature, DecayedCount) else "-"
    return (
        view.name, ", ".join(view.keys), feature.name, kind_of(feature), view.source.name,
        str(view.lookback or "all time"), half_life, str(view.ttl or "-"), _default(feature), view.owner,
        view.description,
    )  # fmt: skip


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _default(feature: Aggregation) -> str:
    if isinstance(feature, Rate):
        return "global rate"
    if isinstance(feature, LastValues):
        return "empty"
    return "missing" if isinstance(feature, Recency) else "0"
