"""What the HTTP service reads and answers; its OpenAPI page is made from these types."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

LONGEST_ID: Final = 512
MOST_ANSWERS: Final = 1000
MOST_IDS: Final = 5000

Id = Annotated[StrictStr, Field(max_length=LONGEST_ID)] | StrictInt
Value = Annotated[StrictStr, Field(max_length=LONGEST_ID)] | StrictBool | StrictInt | StrictFloat
Name = Annotated[str, Field(max_length=LONGEST_ID)]
Length = Annotated[int, Field(ge=1, le=MOST_ANSWERS, description="How many items to answer with.")]


class Order(StrEnum):
    """What the list is sorted by: the retrieval score, or a probability of the towers as a second stage."""

    RETRIEVAL = "retrieval"
    CLICK = "click"
    CONVERSION = "conversion"
    BOTH = "both"


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Between(_Asked):
    """A range of numbers, both ends included."""

    min: float | None = None
    max: float | None = None


Condition = Value | Annotated[list[Value], Field(max_length=MOST_IDS)] | Between


class RecommendRequest(_Asked):
    """Ask for items for a user of the log, or for a stranger who sends their history. Exactly one of the two."""

    user: Id | None = Field(None, description="The user's id as in the log.")
    history: list[Id] | None = Field(
        None, max_length=MOST_IDS, description="Item ids that a user whom the log does not know had, oldest first."
    )
    k: Length = 10
    exclude: list[Id] = Field([], max_length=MOST_IDS, description="Item ids that must not be among the answers.")
    filter: dict[Name, Condition] = Field(
        {}, max_length=20,
        description="Conditions on attributes of items; all must hold. A value, a list of values of which one must"
        " hold, or a range. Attributes are the features of [items] and the relations of the graph.",
    )  # fmt: skip
    explain: StrictBool = Field(False, description="Whether to give each item's reason.")
    order: Order = Field(Order.RETRIEVAL, description="What to sort by; a probability re-ranks the nearest items.")
    context: dict[Name, Value | None] = Field({}, max_length=100, description="Context columns for the towers.")

    @model_validator(mode="after")
    def _one_of_both(self) -> RecommendRequest:
        if (self.user is None) == (self.history is None):
            raise ValueError("send either user or history")
        return self


class SimilarRequest(_Asked):
    """Ask for the nearest items of an item."""

    item: Id = Field(description="The item's id as in the log.")
    k: Length = 10
    filter: dict[Name, Condition] = Field({}, max_length=20, description="As in /v1/recommend.")


class ScoreRequest(_Asked):
    """Ask what would come of showing items to a user."""

    user: Id = Field(description="The user's id as in the log; an unknown one counts as unknown.")
    items: list[Id] = Field(min_length=1, max_length=MOST_IDS, description="Item ids.")
    context: dict[Name, Value | None] = Field({}, max_length=100, description="The declared context columns.")


class Item(BaseModel):
    """One answered item."""

    item: str
    title: str | None
    score: float = Field(description="What the list is sorted by; see `order`.")
    reason: str | None = Field(None, description="Why, in a sentence; only where asked for.")


class RecommendAnswer(BaseModel):
    """The top items, best first."""

    version: str = Field(description="The version that answered.")
    user: str | None = None
    based_on: str = Field(description="What the answer rests on: trained, history or popularity.")
    fallback: str | None = Field(None, description='"popularity" where nothing is known of the user.')
    unknown_items: list[str] = Field(description="Ids of the request's history that the version does not know.")
    items: list[Item]


class SimilarAnswer(BaseModel):
    """The nearest items by cosine, best first."""

    version: str
    item: str
    title: str | None
    items: list[Item]


class ItemScores(BaseModel):
    """Probabilities of one item, as far as the version learned them."""

    item: str
    known: bool = Field(description="Whether the version knows the item.")
    click: float | None = None
    conversion: float | None = Field(None, description="Given a click.")
    both: float | None = Field(None, description="Click and conversion.")


class ScoreAnswer(BaseModel):
    """Probabilities in the order of the request."""

    version: str
    user: str
    items: list[ItemScores]


class Node(BaseModel):
    """A node of the picture. kind: item, entity or history."""

    id: str
    label: str
    kind: str


class Edge(BaseModel):
    """An edge of the picture, by the ids of its nodes."""

    source: str
    target: str
    relation: str
    inferred: bool = False


class ScorePart(BaseModel):
    """What one part of the score adds."""

    part: str
    words: str
    score: float


class Adds(BaseModel):
    """What an item of the history adds to the score."""

    item: str
    title: str | None
    adds: float


class PathEdge(BaseModel):
    """A triple of a path, in names. inferred: a person accepted it, no source says it."""

    head: str
    relation: str
    tail: str
    inferred: bool


class PathAnswer(BaseModel):
    """A way in the graph from the item to items of the history."""

    words: str
    weight: float
    inferred: bool
    history_items: int
    edges: list[PathEdge]


class ExplainAnswer(BaseModel):
    """Why an item has its score for a user: what each part adds, what of the history carries it, and the paths."""

    version: str
    user: str
    item: str
    title: str | None
    score: float
    rank: int | None = Field(description="Its place in the user's list; null beyond 100 or where it is left out.")
    seen: bool
    based_on: str
    reason: str
    parts: list[ScorePart]
    history: list[Adds]
    paths: list[PathAnswer]
    nodes: list[Node]
    edges: list[Edge]


class FoundAnswer(BaseModel):
    """Items whose title or id holds a text."""

    version: str
    items: list[Item]


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    where: str
    what: str
    remedy: str | None = None


class FaultAnswer(BaseModel):
    """What the service answers when it cannot do what was asked."""

    error: str = Field(description="A word for programs.")
    message: str = Field(description="A sentence for people.")
    problems: list[Fault] = []
    version: str | None = None


class Health(BaseModel):
    """Whether the process lives, or can answer."""

    status: str
    version: str | None = None
