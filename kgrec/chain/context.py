"""What every stage is given, and what is measured of each: seconds, peak memory, whether it was reused."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kgrec.artifacts import Artifact
from kgrec.config import LoadedConfig, RunConfig
from kgrec.data.partitions import ParseAll, parse_in_turn
from kgrec.features.declarations import Declaration
from kgrec.training.distributed.launch import Launch
from kgrec.training.reproducible import reproducible
from kgrec.workspace import Workspace

logger = logging.getLogger(__name__)

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class StageProgress:
    """A step within a stage: `done` of `total` units, total None where it cannot be known."""

    stage: str
    text: str
    done: int = 0
    total: int | None = None


def no_progress(progress: StageProgress) -> None:
    """Ignore progress."""


def no_work() -> None:
    """Do nothing when a stage is built."""


@dataclass(frozen=True)
class StageReport:
    """What a stage cost. peak_rss_mb: the process's peak while it ran, in MB (10^6 bytes); 0 where it is unknown."""

    seconds: float
    cached: bool
    peak_rss_mb: float


@dataclass
class Run:
    """One run of the chain: config, workspace, declared features, who hears of progress, who trains, who parses.

    when_built: called whenever a stage is built, not found: what is worth a start when there is work to do.
    promotes: the gate is asked at the end. asked_ahead: what a thread already asks, by the digest of the log.
    starts: where training begins, by the digests of what it begins on.
    """

    loaded: LoadedConfig
    workspace: Workspace
    views: Sequence[Declaration] = ()
    progress: Callable[[StageProgress], None] = no_progress
    reports: dict[str, StageReport] = field(default_factory=dict)
    launch: Launch = field(default_factory=Launch)
    parse_all: ParseAll = parse_in_turn
    when_built: Callable[[], object] = no_work
    promotes: bool = False
    asked_ahead: dict[str, Future[Any]] = field(default_factory=dict)
    starts: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def builds_ahead(self, start: Callable[[], object]) -> None:
        """Call `start` as soon as a stage is built, not found: now, if one was."""
        self.when_built = start
        if not all(report.cached for report in self.reports.values()):
            start()

    @property
    def config(self) -> RunConfig:
        """The validated config."""
        return self.loaded.config

    def tell(self, stage: str) -> Callable[[str], None]:
        """Return a function that reports a line of text as progress of a stage."""
        return lambda text: self.progress(StageProgress(stage, text))

    def stage(
        self,
        name: str,
        inputs: Mapping[str, str],
        config: Mapping[str, Any],
        make: Callable[[Path], Mapping[str, Any]],
    ) -> Artifact:
        """Return the stage's artifact, built now or found, and note what it cost.

        Every stage computes with deterministic kernels and the configured threads: equal inputs, equal bits.
        """

        def built(out: Path) -> Mapping[str, Any]:
            self.when_built()
            return make(out)

        self.progress(StageProgress(name, "started"))
        meter = Meter()
        with reproducible(self.config.training.threads):
            artifact, cached = self.workspace.store.build(name, inputs, config, built)
        self.note(name, meter.stop(cached=cached))
        return artifact

    def note(self, name: str, report: StageReport) -> None:
        """Add a stage's cost to what the run reports; several steps of one stage add up."""
        before = self.reports.get(name)
        if before is not None:
            report = StageReport(
                before.seconds + report.seconds,
                before.cached and report.cached,
                max(before.peak_rss_mb, report.peak_rss_mb),
            )
        self.reports[name] = report
        how = "reused" if report.cached else f"{report.seconds:.1f} s"
        self.progress(StageProgress(name, f"done ({how})", 1, 1))


class Meter:
    """Measures wall-clock seconds and peak resident memory from its making to `stop`."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        try:
            _CLEAR.write_text("5")  # Linux: start the peak anew from what is resident now
        except OSError as error:
            logger.debug("the peak of memory cannot be reset (%s): it counts from the start of the process", error)

    def stop(self, *, cached: bool) -> StageReport:
        """Return what was spent."""
        return StageReport(round(time.perf_counter() - self._start, 3), cached, peak_rss_mb())


def peak_rss_mb() -> float:
    """Return this process's peak resident memory in MB (10^6 bytes) since it was last reset; 0 where unknown."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except OSError as error:
        logger.debug("no peak memory: %s", error)
    return 0.0
