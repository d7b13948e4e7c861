"""The short way of the routes that answer with a list: from the body to the answer, without FastAPI between.

What is documented, and every refusal, stays with the routes of `kgrec.serving.http`: a request that is not plain, or
that goes wrong, goes on to them as if nobody had looked at it, so that there is one set of answers, faults and headers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from kgrec.serving import schema as s
from kgrec.serving.answers import Answerer
from kgrec.serving.guard import SERVED, App, Receive, Scope, Send, replay
from kgrec.serving.meters import Meters
from kgrec.serving.remembered import Kept, Remembered
from kgrec.serving.standing import Standing

RECOMMEND: Final = "/v1/recommend"
SIMILAR: Final = "/v1/similar"
_KIND: Final = (b"content-type", b"application/json")
_PLAIN_KINDS: Final = frozenset({b"application/json", b"application/json; charset=utf-8"})
_CARRY_SECONDS: Final = 2.0
_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def as_json(value: object) -> bytes:
    """Return compact JSON in UTF-8; ValueError for a number that JSON does not have."""
    return _encode(value).encode()


def words_of(asked: s.RecommendRequest) -> dict[str, Any]:
    """Return a request as `Answerer.recommend` takes it."""
    return {
        "user": asked.user, "history": asked.history, "k": asked.k, "exclude": asked.exclude,
        "conditions": conditions(asked.filter), "explain": asked.explain, "order": asked.order,
        "context": asked.context,
    }  # fmt: skip


def conditions(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's filter as `ItemFilter.flags` takes it."""
    return {name: one.model_dump() if isinstance(one, s.Between) else one for name, one in given.items()}


def is_quick(asked: s.RecommendRequest) -> bool:
    """Say whether a list takes well under a millisecond, which is quicker than a change of thread."""
    return not asked.explain and asked.order is s.Order.RETRIEVAL


def nearest(answerer: Answerer, asked: s.SimilarRequest) -> dict[str, Any]:
    """Return the answer of the route of nearest items."""
    return answerer.similar(asked.item, asked.k, conditions(asked.filter))


@dataclass(frozen=True)
class _Plain:
    """A route as the metrics name it, what it reads, and its answer; None where the long way is the right one."""

    path: str
    model: type[BaseModel]
    answer: Callable[[Answerer, Any], dict[str, Any] | None]


def _top(answerer: Answerer, asked: s.RecommendRequest) -> dict[str, Any] | None:
    return answerer.recommend(**words_of(asked)) if is_quick(asked) else None


ROUTES: Final[Mapping[str, _Plain]] = MappingProxyType(
    {RECOMMEND: _Plain(RECOMMEND, s.RecommendRequest, _top), SIMILAR: _Plain(SIMILAR, s.SimilarRequest, nearest)}
)
"""What has a short way."""


class ShortWay:
    """Stands between the guard and the routes; whatever it does not answer goes on to them.

    remembered_bytes: room for answers to be given again while their version is served (see `Remembered`).
    """

    def __init__(self, app: App, meters: Meters, remembered_bytes: int = 0) -> None:
        self._app, self._meters, self._remembered_bytes = app, meters, remembered_bytes
        self._remembered: WeakKeyDictionary[Answerer, Remembered] = WeakKeyDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        plain = ROUTES.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if plain is not None and _declared(scope) in _PLAIN_KINDS:
            message = await receive()
            body: bytes = message.get("body", b"")
            if (found := self._answer(scope[SERVED], plain, body)) is not None:
                scope["route"] = plain
                headers = [(b"content-length", b"%d" % len(found)), _KIND]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": found})
                return
            receive = replay(body, receive)
        await self._app(scope, receive, send)

    def carry_over(self, old: Answerer, fresh: Answerer) -> None:
        """Ask a version that is about to be served what was asked of the old one last, for at most two seconds.

        Else all lists would have to be made in the first seconds after a switch. A list by popularity is not carried
        over: whoever the new version does not know may have been forgotten.
        """
        until = time.monotonic() + _CARRY_SECONDS
        before, remembered = self._remembered.get(old), Remembered(self._remembered_bytes)
        for path, body in before.latest() if before is not None else ():
            if time.monotonic() > until:
                break
            kept = _computed(fresh, ROUTES[path], body)
            if kept is not None and kept.based_on != Standing.POPULARITY:
                remembered.keep((path, body), kept)
        self._remembered[fresh] = remembered

    def _answer(self, served: Answerer | None, plain: _Plain, body: bytes) -> bytes | None:
        """Return the answer's body; None where the long way must say what is wrong, or take a thread."""
        if served is None:
            return None
        remembered = self._remembered.get(served)
        if remembered is None:
            remembered = self._remembered[served] = Remembered(self._remembered_bytes)
        asked = (plain.path, body)
        if (kept := remembered.find(asked)) is not None:
            self._meters.remembered.inc()
        elif (kept := _computed(served, plain, body)) is not None:
            remembered.keep(asked, kept)
        else:
            return None
        if kept.based_on is not None:
            self._meters.based_on.labels(kept.based_on).inc()
        return kept.body


def _computed(served: Answerer, plain: _Plain, body: bytes) -> Kept | None:
    try:
        found = plain.answer(served, plain.model.model_validate(json.loads(body)))
        return None if found is None else Kept(as_json(found), found.get("based_on"))
    except Exception:  # whatever it is: the routes meet it again, and have the words for it
        return None


def _declared(scope: Scope) -> bytes:
    """Return what the body is declared as; nothing where that is said twice."""
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    return kinds[0].lower() if len(kinds) == 1 else b""
