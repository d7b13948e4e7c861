"""Draws progress on stderr: a bar per long step on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from kgrec.chain.context import StageProgress

_EVERY = 10


class ProgressPainter:
    """Hears of progress and shows it. Use it as a context: on leaving, the bars are put away."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._bars: dict[str, TaskID] = {}
        self._lines_said: dict[str, int] = {}
        self._live: Progress | None = None
        if self._console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.fields[stage]:<9}"),
                BarColumn(),
                TextColumn("{task.description}"),
            )
            self._live = Progress(*columns, TimeElapsedColumn(), console=self._console)

    def __enter__(self) -> ProgressPainter:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, progress: StageProgress) -> None:
        """Show one step."""
        if self._live is None:
            self._say(progress)
            return
        if progress.stage not in self._bars:
            self._bars[progress.stage] = self._live.add_task(progress.text, total=None, stage=progress.stage)
        self._live.update(
            self._bars[progress.stage], description=progress.text, completed=progress.done, total=progress.total
        )

    def _say(self, progress: StageProgress) -> None:
        """Print a line; of a long count, every tenth step only."""
        if progress.total is not None and 0 < progress.done < progress.total and progress.done % _EVERY:
            return
        part = f" {progress.done}/{progress.total}" if progress.total is not None and progress.total > 1 else ""
        self._console.print(f"{progress.stage:<9}{part} {progress.text}", highlight=False, markup=False, soft_wrap=True)
