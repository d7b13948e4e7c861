"""What the service allows: its settings, and a bucket of tokens per caller."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

_CALLERS: Final = 10_000


class ServiceConfig(BaseModel):
    """The settings of `kgrec serve`; each is an option of the command."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    tokens: Path | None = Field(None, description="File of token hashes. Without one (or KGREC_TOKENS): loopback only.")
    max_body_bytes: int = Field(262_144, ge=256, description="Largest request body, in bytes; larger is refused (413).")
    requests_per_second: float = Field(
        2000.0, gt=0, description="Requests a second that one caller may make; more is refused (429)."
    )
    burst: int = Field(4000, ge=1, description="Requests that one caller may make at once before the rate counts.")
    max_in_flight: int = Field(256, ge=1, description="Requests under way at once; more is refused (503).")
    body_seconds: float = Field(10.0, gt=0, description="How long a body may take to arrive, in seconds (408).")
    answer_seconds: float = Field(10.0, gt=0, description="How long an answer may take, in seconds (503).")
    drain_seconds: int = Field(20, ge=0, description="How long requests under way may take after SIGTERM, in seconds.")
    watch_seconds: float = Field(0.5, gt=0, description="How often to look whether another version is promoted.")
    remembered_mb: int = Field(
        16, ge=0, description="Room for lists to be given again to the same request, in MB; 0 computes each anew."
    )
    threads: int = Field(1, ge=1, description="Threads of one search.")

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


class RateLimit:
    """A bucket of requests per caller: `burst` at once, refilled at `per_second`. The longest unseen are forgotten."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, float(burst), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, caller: str) -> float:
        """Count a request; return 0 when it may go on, else the seconds until the next one may."""
        now = self._clock()
        left, since = self._buckets.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_second)
        allowed = left >= 1.0
        self._buckets[caller] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > _CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self._per_second
