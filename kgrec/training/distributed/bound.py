"""`python -m kgrec.training.distributed.bound MODULE ARGUMENT...`: a module's `main`, for no longer than the parent.

torchrun's agent runs by it, and so does each process that the agent starts: a signal that nobody can catch ends the one
that gets it and tells no other, and what is left would go on training.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from kgrec.parentage import end_with

MODULE: Final = "kgrec.training.distributed.bound"
PARENT: Final = "KGREC_PARENT"
"""The variable in which a process finds the number of the one that started it."""


def main(arguments: Sequence[str]) -> None:
    """Call `main` of the module that comes first with the arguments that follow."""
    end_with(int(os.environ[PARENT]))
    os.environ[PARENT] = str(os.getpid())
    module, *others = arguments
    import_module(module).main(others)


if __name__ == "__main__":
    main(sys.argv[1:])
