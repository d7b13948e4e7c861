"""The version that the service answers from, switched whole while requests run.

A request takes the answerer once and keeps it to its end; a new version is loaded aside, asked, and only then put in
its place. What cannot be loaded leaves the old one serving, and says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kgrec.errors import ArtifactError
from kgrec.serving.answers import Answerer
from kgrec.serving.pacing import paced
from kgrec.serving.recommend import open_version
from kgrec.serving.versions import read_registry, require
from kgrec.workspace import Workspace

_RETRY_LOOKS: Final = 20
logger = logging.getLogger(__name__)


class LiveVersion:
    """Follows the promoted version of a workspace. `current` is None until there is one.

    before_switch: called with the version served and the one that follows it, in the loading thread.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._seen: tuple[int, ...] | None = None
        self._looks = 0
        self._key = ""
        self.current: Answerer | None = None
        self.switches = 0
        self.failures = 0
        self.stale = False
        self.before_switch: Callable[[Answerer, Answerer], None] = lambda old, fresh: None

    def look(self) -> bool:
        """Load what is promoted now, when it is another version than the one served; say whether it was switched.

        The registry is read only when its file changed, or again every 20 looks after a failure.
        """
        self._looks += 1
        mark = _mark(self._workspace.registry)
        if mark == self._seen and not (self.stale and self._looks % _RETRY_LOOKS == 0):
            return False
        try:
            switched = self._follow()
        except Exception as error:  # of whatever kind: what is served must not end with what cannot be
            self.failures += 1
            self.stale = True
            logger.error("the promoted version cannot be loaded (%s); the old one serves on", type(error).__name__)
            logger.debug("why", exc_info=True)
            switched = False
        else:
            self.stale = False
        self._seen = mark
        return switched

    async def watch(self, seconds: float) -> None:
        """Look every so many seconds, in another thread that leaves the processor to requests, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await asyncio.to_thread(_paced, self.look)
            except Exception:  # the watcher must outlive whatever happens
                logger.exception("looking for another version failed")

    def _follow(self) -> bool:
        registry = read_registry(self._workspace)
        if registry.promoted is None:
            return False
        record = require(registry, registry.promoted)
        if self.current is not None and (record.version, record.key) == (self.current.number, self._key):
            return False
        fresh = Answerer(open_version(self._workspace.store.path("version", record.key), record.version))
        if not fresh.number:
            raise ArtifactError("a version without a number")
        if self.current is not None:
            self.before_switch(self.current, fresh)
        self.switches += 1  # before the switch: whoever sees the new one finds it counted
        self.current, self._key = fresh, record.key  # one assignment: requests see the old one or the new one
        logger.info("version %s is served now", fresh.number)
        return True


def _paced(look: Callable[[], bool]) -> bool:
    with paced():
        return look()


def _mark(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)
