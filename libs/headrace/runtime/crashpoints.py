"""Named instants at which a test may kill the process. Nothing happens unless the environment arms one.

`HEADRACE_CRASH` is not configuration: it exists in tests alone, is read once, and dies by SIGKILL, which no handler,
`finally` or buffer survives. Format `<point>:<n>`: the n-th passage kills. The file `HEADRACE_CRASH_FILE` gets the
point's name first, so that a test can show that it was reached.
"""

import os
import signal

_point, _, _nth = os.environ.get("HEADRACE_CRASH", "").partition(":")
_left = [int(_nth or "1")]


def crashpoint(name: str) -> None:
    """Die here when armed for `name` and passed often enough."""
    if name != _point:
        return
    _left[0] -= 1
    if _left[0] == 0:
        path = os.environ.get("HEADRACE_CRASH_FILE")
        if path:
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{name}\n")
                file.flush()
                os.fsync(file.fileno())
        os.kill(os.getpid(), signal.SIGKILL)
