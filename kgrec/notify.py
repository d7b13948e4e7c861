"""Tells a team's chat or pager by webhook what went wrong while nobody looked. It never fails what it tells of."""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from http.client import HTTPException
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

logger = logging.getLogger(__name__)


class Happening(StrEnum):
    """What may be told."""

    FAILURE = "failure"
    REFUSAL = "refusal"
    DRIFT = "drift"


class NotifyConfig(BaseModel):
    """Who is told of a scheduled run that failed or was refused, and of drift."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: SecretStr | None = Field(
        default=None, description="http(s) address that gets a POST with JSON; it is kept out of logs and reports"
    )
    on: tuple[Happening, ...] = Field(default=tuple(Happening), description="what is told: failure, refusal, drift")
    timeout_seconds: float = Field(default=5.0, gt=0, le=60, description="how long the address may take, (0, 60] s")

    @field_validator("url")
    @classmethod
    def _only_http(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("an address starts with http:// or https://")
        return url


def notify(config: NotifyConfig, happening: Happening, name: str, text: str, facts: Mapping[str, Any]) -> bool:
    """POST what happened and return whether the address took it; a fault of the address is logged, never raised.

    The body: "event", "name" of the config, "text" (a sentence; chats show this key), "time" (UTC) and `facts`.
    """
    if config.url is None or happening not in config.on:
        return False
    told = {"event": happening.value, "name": name, "text": text, "time": datetime.now(UTC).isoformat("T", "seconds")}
    body = json.dumps({**told, **facts}, default=str).encode()
    request = urllib.request.Request(  # noqa: S310  the validator lets http(s) alone pass
        config.url.get_secret_value(), data=body, headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=config.timeout_seconds) as answer:  # noqa: S310
            taken: bool = 200 <= answer.status < 300
    except (OSError, HTTPException, ValueError) as fault:
        logger.warning("nobody could be told of the %s: %s", happening.value, type(fault).__name__)
        return False
    return taken
