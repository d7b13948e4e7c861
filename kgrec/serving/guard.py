"""What stands before every route: who may ask, how much, how long, and what leaves the house.

An ASGI wrapper: it takes the version once per request, reads the body within its limits, and turns whatever goes wrong
into a small JSON answer without a trace of the inside.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from kgrec.serving.limits import RateLimit, ServiceConfig
from kgrec.serving.live import LiveVersion
from kgrec.serving.meters import Meters
from kgrec.serving.tokens import Tokens

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SERVED: Final = "kgrec.served"
OPEN: Final = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
TOO_BIG: Final = "too_big"
INTERNAL: Final = "something went wrong here; the log of the service says what"
NO_TOKEN: Final = {"www-authenticate": 'Bearer realm="kgrec"'}
_ALIVE: Final = frozenset({"/healthz", "/readyz"})
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_SHUT: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_DROPPED_BYTES: Final = 64 << 20
logger = logging.getLogger(__name__)


class RefusedError(Exception):
    """A request that ends here. `status` is HTTP's; `error` a word for programs; `message` a sentence for people."""

    def __init__(self, status: int, error: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.error, self.message, self.headers = status, error, message, dict(headers or {})


class Guard:
    """Wraps the routes. `tokens` gives the tokens that count now, None where none are asked for."""

    def __init__(
        self, app: App, live: LiveVersion, meters: Meters, config: ServiceConfig, tokens: Callable[[], Tokens | None]
    ) -> None:
        self._app, self._live, self._meters, self._config, self._tokens = app, live, meters, config, tokens
        self._rate = RateLimit(config.requests_per_second, config.burst)
        self._strangers = RateLimit(10.0, 100)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass the life of the process through."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        scope[SERVED] = self._live.current
        answer = _Answer(send, scope)
        self._in_flight += 1
        self._meters.in_flight.set(self._in_flight)
        try:
            await self._pass(scope, receive, answer)
        finally:
            self._in_flight -= 1
            self._meters.in_flight.set(self._in_flight)
            route = getattr(scope.get("route"), "path", "other")
            self._meters.requests.labels(route, str(answer.status)).inc()
            seconds = time.perf_counter() - start
            self._meters.seconds.labels(route).observe(seconds)
            logger.debug("%s %s %d in %.1f ms", scope["method"], route, answer.status, seconds * 1000)

    async def _pass(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            self._admit(scope)
            body = await self._body(scope, receive)
            async with asyncio.timeout(self._config.answer_seconds):
                await self._app(scope, replay(body, receive), answer.send)
        except RefusedError as refused:
            await answer.refuse(refused, partial(self._drop, receive) if refused.error == TOO_BIG else None)
        except TimeoutError:
            await answer.refuse(RefusedError(503, "timeout", "the answer took too long", {"retry-after": "1"}))
        except Exception:
            logger.exception("a request failed")  # the trace stays here
            await answer.refuse(RefusedError(500, "internal", INTERNAL))

    def _admit(self, scope: Scope) -> None:
        """Check host, token, rate and load; RefusedError says which forbids it."""
        path, headers = scope["path"], dict(scope["headers"])
        caller = f"address {(scope.get('client') or ('unknown',))[0]}"
        tokens = self._tokens()
        if tokens is None:
            _local_only(headers)
        elif path not in OPEN:
            caller = self._owner(tokens, headers, caller)
        if path in _ALIVE:
            return
        seconds = self._rate.wait(caller)
        if seconds:
            raise _too_many(seconds)
        if self._in_flight > self._config.max_in_flight:
            raise RefusedError(503, "overloaded", "too many requests are under way", {"retry-after": "1"})

    def _owner(self, tokens: Tokens, headers: Mapping[bytes, bytes], caller: str) -> str:
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        owner = tokens.owner(token.strip()) if scheme.lower() == "bearer" and token else None
        if owner is None:
            seconds = self._strangers.wait(caller)
            if seconds:
                raise _too_many(seconds)
            message = "a bearer token is needed, and this one is wrong, missing or expired"
            raise RefusedError(401, "unauthorized", message, NO_TOKEN)
        return f"token {owner}"

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Return the whole body; RefusedError when it is too big, too slow, or no JSON."""
        if scope["method"] != "POST":
            return b""
        headers, limit = dict(scope["headers"]), self._config.max_body_bytes
        too_big = RefusedError(413, TOO_BIG, f"a body may have {limit:,} bytes", {"connection": "close"})
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > limit:
            raise too_big
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            raise RefusedError(415, "no_json", "send JSON, with the header Content-Type: application/json")
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._config.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "cut_short", "the body ended early")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise too_big
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise RefusedError(408, "too_slow", "the body took too long", {"connection": "close"}) from None

    async def _drop(self, receive: Receive) -> None:
        """Read what is still sent of a refused body and forget it, up to a bound of bytes and seconds.

        A connection that is closed while its caller sends is reset, and the caller never reads why.
        """
        left = _DROPPED_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.body_seconds):
                while left > 0:
                    message = await receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
                    left -= len(message.get("body", b""))


class _Answer:
    """Sends an answer on, with the headers that every answer has, and remembers its status."""

    def __init__(self, send: Send, scope: Scope) -> None:
        self._send, self._scope, self.status = send, scope, 499
        self._started = self._whole = False

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._started, self.status = True, message["status"]
            headers = list(message.get("headers", ()))
            own = {name for name, _ in headers}
            headers += [pair for pair in (*_HEADERS, _SHUT) if pair[0] not in own]
            served = self._scope[SERVED]
            if served is not None:
                headers.append((b"x-kgrec-version", served.number.encode()))
            message["headers"] = headers
        elif not message.get("more_body", False):
            self._whole = True
        await self._send(message)

    async def refuse(self, refused: RefusedError, rest: Callable[[], Awaitable[None]] | None = None) -> None:
        """Send a refusal, unless an answer was sent already; one that is half sent is cut off.

        rest: what is waited for between the last byte of the refusal and its end.
        """
        if self._whole:
            return
        if self._started:
            raise refused
        served = self._scope[SERVED]
        body = fault_body(refused.error, refused.message, version=served.number if served else None)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(name.encode(), value.encode()) for name, value in refused.headers.items()]
        await self.send({"type": "http.response.start", "status": refused.status, "headers": headers})
        if rest is not None:
            await self.send({"type": "http.response.body", "body": body, "more_body": True})
            await rest()
            body = b""
        await self.send({"type": "http.response.body", "body": body})


def fault_body(
    error: str, message: str, problems: list[dict[str, Any]] | None = None, version: str | None = None
) -> bytes:
    """Return the JSON of a refusal: see `kgrec.serving.schema.FaultAnswer`."""
    return json.dumps({"error": error, "message": message, "problems": problems or [], "version": version}).encode()


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read already, whole, and then what still comes."""
    sent = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _local_only(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a foreign Host: a web page whose name was pointed at this machine could else ask in a person's place."""
    host = headers.get(b"host", b"").decode("latin-1").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] if ":" in host else host
    if name not in _LOCAL_NAMES:
        raise RefusedError(403, "foreign_host", "without tokens, only names of this machine are answered")


def _too_many(seconds: float) -> RefusedError:
    return RefusedError(429, "too_many", "too many requests", {"retry-after": str(max(1, math.ceil(seconds)))})
