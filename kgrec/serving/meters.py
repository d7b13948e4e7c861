"""What the service counts, in Prometheus' text format. No label ever holds an id."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kgrec.serving.live import LiveVersion

_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Meters:
    """The counters of one service."""

    def __init__(self, live: LiveVersion) -> None:
        self._live = live
        self._registry = CollectorRegistry()
        self.requests = Counter("kgrec_requests", "Requests answered.", ["route", "status"], registry=self._registry)
        self.seconds = Histogram(
            "kgrec_request_seconds", "Seconds from the request to the end of its answer.", ["route"],
            buckets=_BOUNDS, registry=self._registry,
        )  # fmt: skip
        self.based_on = Counter(
            "kgrec_recommendations", "Lists by what they rest on: trained, history, popularity.", ["based_on"],
            registry=self._registry,
        )  # fmt: skip
        self.remembered = Counter(
            "kgrec_remembered_answers", "Lists that were asked for before, and given again.", registry=self._registry
        )
        self.in_flight = Gauge("kgrec_requests_in_flight", "Requests under way.", registry=self._registry)
        self._version = Gauge(
            "kgrec_version_info", "1 for the version that is served.", ["version"], registry=self._registry
        )
        facts = {
            "kgrec_version_switches": ("Versions put into service since the start.", lambda: live.switches),
            "kgrec_version_load_failures": ("Promoted versions that did not load.", lambda: live.failures),
            "kgrec_version_stale": ("1 while the promoted version does not load.", lambda: int(live.stale)),
        }
        for name, (text, read) in facts.items():
            Gauge(name, text, registry=self._registry).set_function(read)

    def render(self) -> bytes:
        """Return all figures as text."""
        self._version.clear()
        served = self._live.current
        if served is not None:
            self._version.labels(served.number).set(1)
        return generate_latest(self._registry)
