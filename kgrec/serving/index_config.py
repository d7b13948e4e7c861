"""How nearest items are found: what a user may ask for. What it is made of is `kgrec.serving.index`'s business."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class KindName(StrEnum):
    """A kind of index."""

    AUTO = "auto"
    EXACT = "exact"
    IVF_PQ = "ivf_pq"
    HNSW = "hnsw"
    IVF = "ivf"


class IndexConfig(BaseModel):
    """[index]: how nearest items are found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(0, ge=0, description="Threads of a search; 0 = all cores.")
    kind: KindName = Field(
        KindName.AUTO,
        description="exact: every vector is looked at. ivf_pq: lists of short codes, the best looked at again in full; "
        "hnsw: a graph of neighbours; ivf: lists of full vectors. auto: exact up to `exact_items`, beyond the first of "
        "ivf_pq, hnsw and ivf that passes. What misses `recall` or `latency_ms` is not served: exact takes its place.",
    )
    exact_items: int = Field(200_000, ge=0, description="kind auto: items up to which the index is exact, >= 0.")
    recall: float = Field(
        0.99,
        gt=0,
        le=1,
        description="Share of the exact ten nearest items that another kind must find, for users it was not tuned on, "
        "(0, 1].",
    )
    latency_ms: float = Field(
        20.0, gt=0, description="Milliseconds that one search of another kind may take on average, > 0."
    )
    shards: int = Field(
        1,
        ge=1,
        description="Files into which the index is cut by item row, each built on its own; one query looks into "
        "all of them side by side.",
    )
    memory_map: bool = Field(
        False, description="Leave the index on disk and read of it what a search touches, shared by all processes."
    )
