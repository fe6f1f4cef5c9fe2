"""Threads that hang do not hold the process."""

import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError

import pytest

from headrace.runtime.threads import DaemonThreads

HANGS = """
import threading
from headrace.runtime.threads import DaemonThreads
threads = DaemonThreads(2, name="t")
began = threading.Event()
threads.submit(lambda: (began.set(), threading.Event().wait(60)))
assert began.wait(10)
threads.shutdown(wait=False, cancel_futures=True)
print("done")
"""


def test_the_process_ends_while_a_call_hangs() -> None:
    """As after Ctrl-C while a file system or a name server is silent."""
    began_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert time.monotonic() - began_s < 40


def test_results_and_errors_reach_whoever_waits_and_threads_are_bounded() -> None:
    """Many calls, few threads, each answer at its own place."""
    threads = DaemonThreads(3, name="t")
    ran: set[str] = set()

    def square(number: int) -> int:
        ran.add(threading.current_thread().name)
        return number * number

    futures = [threads.submit(square, number) for number in range(50)]
    assert [future.result(10) for future in futures] == [number * number for number in range(50)]
    assert ran <= {"t-1", "t-2", "t-3"}
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(10)
    threads.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(square, 1)


def test_what_has_not_begun_is_cancelled_on_request() -> None:
    """What runs goes on, what waits never begins."""
    threads = DaemonThreads(1, name="t")
    began, go = threading.Event(), threading.Event()
    running = threads.submit(lambda: (began.set(), go.wait(30)))
    assert began.wait(10)
    waiting = threads.submit(int)
    threads.shutdown(cancel_futures=True)
    go.set()
    with pytest.raises(CancelledError):
        waiting.result(10)
    assert running.result(10) == (None, True)
