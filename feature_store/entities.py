"""How all that shares an author, a tag, a genre, ... is received."""

from kgrec.features.nodes import Degree, GraphEmbedding, NodeView
from kgrec.features.view import Count, FeatureView, Of, Rate

OWNER = "recommendation"

ITEM_FEATURE = FeatureView(
    name="item_feature",
    keys=("item:*",),
    features=(Count(), Rate(Of.CLICK), Rate(Of.CONVERSION_GIVEN_CLICK)),
    lookback=None,
    description="How items of the same author, tag, ... are received (one view per categorical item feature)",
    owner=OWNER,
)
CONTEXT = FeatureView(
    name="context",
    keys=("context:*",),
    features=(Rate(Of.CLICK), Rate(Of.CONVERSION_GIVEN_CLICK)),
    lookback=None,
    description="What people do in this context (one view per context column)",
    owner=OWNER,
)
ITEM_NEIGHBOURS = FeatureView(
    name="item_neighbours",
    keys=("graph:*",),
    features=(Count(), Rate(Of.CLICK), Rate(Of.CONVERSION_GIVEN_CLICK)),
    lookback=None,
    description="How items that share an entity of the graph with this one are received; known of a new item, too",
    owner=OWNER,
)
ITEM_NODE = NodeView(
    name="item_node",
    features=(Degree(), GraphEmbedding(8)),
    description="How much the graph says of this item, and where that puts it among the items",
    owner=OWNER,
)
