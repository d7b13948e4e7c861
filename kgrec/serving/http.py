"""The HTTP service: routes over the promoted version. `guard` stands before them, their shapes are in `schema`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import kgrec
from kgrec.errors import InputError
from kgrec.serving import schema as s
from kgrec.serving.answers import Answerer, UnknownItemError
from kgrec.serving.guard import INTERNAL, SERVED, App, Guard, RefusedError, fault_body
from kgrec.serving.limits import ServiceConfig
from kgrec.serving.live import LiveVersion
from kgrec.serving.meters import Meters
from kgrec.serving.page import PAGE, PAGE_POLICY
from kgrec.serving.short_way import RECOMMEND, SIMILAR, ShortWay, as_json, is_quick, nearest, words_of
from kgrec.serving.tokens import Tokens

_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_FAULTS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": s.FaultAnswer, "description": "The body is no JSON."},
    401: {"model": s.FaultAnswer, "description": "A token is needed; wrong, missing or expired."},
    403: {"model": s.FaultAnswer, "description": "Without tokens: asked by a name that is not this machine's."},
    408: {"model": s.FaultAnswer, "description": "The body took too long."},
    413: {"model": s.FaultAnswer, "description": "The body is too big."},
    415: {"model": s.FaultAnswer, "description": "The body is not declared as JSON."},
    422: {"model": s.FaultAnswer, "description": "The request says something that cannot be."},
    429: {"model": s.FaultAnswer, "description": "Too many requests; see Retry-After."},
    500: {"model": s.FaultAnswer, "description": "A fault of the service."},
    503: {"model": s.FaultAnswer, "description": "No version is promoted, too much is under way, or it took too long."},
}
_UNKNOWN: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": s.FaultAnswer, "description": "The item is not in the catalogue."}
}
_WORDS: Final = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 422: "invalid"}
_Text = Annotated[str, Query(max_length=s.LONGEST_ID)]


def create_app(live: LiveVersion, config: ServiceConfig, tokens: Callable[[], Tokens | None]) -> App:
    """Return the service as an ASGI application.

    tokens: gives the tokens that count now; None where none are asked for, which only loopback may have.
    """
    meters = Meters(live)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        watcher = asyncio.create_task(live.watch(config.watch_seconds))
        yield
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher

    app = FastAPI(
        title="kgrec", version=kgrec.__version__, docs_url=None, redoc_url=None, lifespan=life,
        description="Recommendations of the promoted version. Every answer names the version that gave it.",
    )  # fmt: skip
    _for_operators(app, live, meters)
    _for_programs(app, meters)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InputError, _input_fault)
    app.add_exception_handler(HTTPException, _http_fault)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(Exception, _internal)
    short = ShortWay(app, meters, config.remembered_mb << 20)
    live.before_switch = short.carry_over
    return Guard(short, live, meters, config, tokens)


def _for_operators(app: FastAPI, live: LiveVersion, meters: Meters) -> None:
    @app.get("/healthz", response_model=s.Health, tags=["operation"], summary="Whether the process lives")
    async def healthz() -> Response:
        return _json({"status": "ok", "version": live.current.number if live.current else None})

    @app.get(
        "/readyz", response_model=s.Health, tags=["operation"], summary="Whether it can answer",
        responses={503: {"model": s.Health, "description": "No version is loaded."}},
    )  # fmt: skip
    async def readyz() -> Response:
        if live.current is None:
            return _json({"status": "no version is promoted", "version": None}, 503)
        return _json({"status": "ok", "version": live.current.number})

    @app.get(
        "/metrics", tags=["operation"], summary="Figures for Prometheus", response_class=Response,
        responses=_faults(200, {"content": {"text/plain": {"schema": {"type": "string"}}}}),
    )  # fmt: skip
    async def metrics() -> Response:
        return Response(meters.render(), media_type=_TEXT)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(PAGE, media_type="text/html", headers={"content-security-policy": PAGE_POLICY})


def _for_programs(app: FastAPI, meters: Meters) -> None:
    @app.post(RECOMMEND, response_model=s.RecommendAnswer, responses=_FAULTS, summary="Top items")
    async def recommend(asked: s.RecommendRequest, request: Request) -> Response:
        answerer, words = _answerer(request), words_of(asked)
        if is_quick(asked):
            found = answerer.recommend(**words)
        else:
            found = await asyncio.to_thread(lambda: answerer.recommend(**words))
        meters.based_on.labels(found["based_on"]).inc()
        return _json(found)

    @app.post(SIMILAR, response_model=s.SimilarAnswer, responses=_FAULTS | _UNKNOWN, summary="Nearest items")
    async def similar(asked: s.SimilarRequest, request: Request) -> Response:
        return _json(nearest(_answerer(request), asked))

    @app.post("/v1/score", response_model=s.ScoreAnswer, responses=_FAULTS, summary="Click and conversion")
    async def score(asked: s.ScoreRequest, request: Request) -> Response:
        answerer = _answerer(request)
        return _json(await asyncio.to_thread(answerer.score, asked.user, asked.items, asked.context))

    @app.get("/v1/explain", response_model=s.ExplainAnswer, responses=_FAULTS | _UNKNOWN, summary="Why an item")
    async def explain(user: _Text, item: _Text, request: Request) -> Response:
        return _json(await asyncio.to_thread(_answerer(request).explain, user, item))

    @app.get("/v1/items", response_model=s.FoundAnswer, responses=_FAULTS, summary="Items by a part of their title")
    async def items(text: _Text, request: Request, k: Annotated[int, Query(ge=1, le=50)] = 10) -> Response:
        return _json(await asyncio.to_thread(_answerer(request).find, text, k))


def _faults(status: int, good: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {status: good}
    return found | {code: fault for code, fault in _FAULTS.items() if code in (401, 403, 429, 500, 503)}


def _answerer(request: Request) -> Answerer:
    """Return the version that this request was given when it came in."""
    served: Answerer | None = request.scope[SERVED]
    if served is None:
        raise RefusedError(503, "not_ready", "no version is promoted", {"retry-after": "5"})
    return served


def _json(value: object, status: int = 200) -> Response:
    return Response(as_json(value), status, media_type="application/json")


def _fault(request: Request, status: int, error: str, message: str, problems: list[dict[str, Any]]) -> Response:
    served: Answerer | None = request.scope[SERVED]
    body = fault_body(error, message, problems, served.number if served else None)
    return Response(body, status, media_type="application/json")


async def _invalid(request: Request, error: Exception) -> Response:
    """Say where and what, never what was sent: it may be anything, and long."""
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    problems = [{"where": ".".join(map(str, fault["loc"]))[:200], "what": str(fault["msg"])[:200], "remedy": None}
                for fault in faults[:20]]  # fmt: skip
    return _fault(request, 422, "invalid", "the request is not of the documented form", problems)


async def _input_fault(request: Request, error: Exception) -> Response:
    found = error.problems if isinstance(error, InputError) else ()
    status = 404 if isinstance(error, UnknownItemError) else 422
    problems = [{"where": one.where[:200], "what": one.what, "remedy": one.remedy[:500]} for one in found[:20]]
    return _fault(request, status, _WORDS[status], problems[0]["what"] if problems else "invalid", problems)


async def _http_fault(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    answer = _fault(request, status, _WORDS.get(status, "refused"), str(getattr(error, "detail", "refused")), [])
    answer.headers.update(getattr(error, "headers", None) or {})
    return answer


async def _refused(request: Request, error: Exception) -> Response:
    refused = error if isinstance(error, RefusedError) else RefusedError(500, "internal", "refused")
    answer = _fault(request, refused.status, refused.error, refused.message, [])
    answer.headers.update(refused.headers)
    return answer


async def _internal(request: Request, error: Exception) -> Response:
    return _fault(request, 500, "internal", INTERNAL, [])
