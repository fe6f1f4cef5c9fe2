"""Child processes that die with us: whatever ends the parent, SIGKILL included, leaves nothing running."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1


def spawn(
    command: Sequence[str], *, output: Path, environ: Mapping[str, str] | None = None, keep_fds: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    """A child in a session of its own: a Ctrl-C for the foreground group reaches the parent alone, which then stops it.

    Args:
        output: Both its streams are appended to this file.
        keep_fds: Descriptors that it inherits, e.g. of a lock that must be held until it is gone.
    """
    before: Callable[[], None] | None = None
    if sys.platform == "linux":
        before = _die_with_parent(ctypes.CDLL(None, use_errno=True), os.getpid())
    with output.open("ab") as stream:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=None if environ is None else dict(environ),
            pass_fds=tuple(keep_fds),
            start_new_session=True,
            preexec_fn=before,
        )


def _die_with_parent(libc: Any, parent: int) -> Callable[[], None]:
    """What the child does before it becomes the program; nothing here may import or allocate much."""

    def arm() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the signal was armed
            os._exit(1)

    return arm
