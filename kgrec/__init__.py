"""kgrec: from an interaction log and an item knowledge graph to a tested, promoted, explainable recommender."""

from __future__ import annotations

__version__ = "0.1.0"
