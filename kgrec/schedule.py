"""How a run that nobody watches deals with trouble: what is tried again, how often, and when it is given up."""

from __future__ import annotations

import errno
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from kgrec.errors import UnreachableError, WorkspaceBusyError

_FUTILE: Final = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_FUTILE_NUMBERS: Final = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ENAMETOOLONG}


class ScheduleConfig(BaseModel):
    """How a scheduled run (`kgrec deploy`) deals with trouble."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retries: int = Field(
        default=3, ge=0, description="how often a stage is tried again after an error of input or output, >= 0"
    )
    retry_seconds: float = Field(
        default=10.0, ge=0, description="wait before the first retry, in s, >= 0; doubled before each further one"
    )
    timeout_minutes: float | None = Field(
        default=None, gt=0, description="a run that takes longer is stopped and counts as failed, in min, > 0"
    )

    @property
    def waits(self) -> list[float]:
        """The seconds before each retry.

        >>> ScheduleConfig(retries=3, retry_seconds=5).waits
        [5.0, 10.0, 20.0]
        """
        return [self.retry_seconds * 2.0**attempt for attempt in range(self.retries)]

    @property
    def timeout_seconds(self) -> float | None:
        """The longest time of a run, in seconds; None without a limit."""
        return None if self.timeout_minutes is None else 60 * self.timeout_minutes


def may_pass(fault: BaseException) -> bool:
    """Say whether trying again may help: network, a database, a workspace in use; not wrong input, not a full disk.

    >>> may_pass(ConnectionResetError()), may_pass(FileNotFoundError()), may_pass(ValueError())
    (True, False, False)
    """
    if isinstance(fault, UnreachableError | WorkspaceBusyError):
        return True
    return isinstance(fault, OSError) and not isinstance(fault, _FUTILE) and fault.errno not in _FUTILE_NUMBERS
