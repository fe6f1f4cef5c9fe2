"""Threads for calls that block. The process does not wait for them at its end, as it would for those of the library.

A file system that hangs, or a name server that is silent for half a minute, must hold neither a drain nor Ctrl-C.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, Final

_Job = tuple["Future[Any]", Callable[[], Any]]
_END: Final = None


class DaemonThreads(Executor):
    """At most `threads_max`, started as they are needed; what is handed in meanwhile waits.

    Whoever hands in bounds how much that is.
    """

    def __init__(self, threads_max: int, *, name: str) -> None:
        self._max, self._name = threads_max, name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._started = 0
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """See Executor. Raises RuntimeError after `shutdown`."""
        made: Future[Any] = Future()
        with self._lock:
            if self._closed:
                msg = f"{self._name}: shut down"
                raise RuntimeError(msg)
            self._jobs.put((made, partial(fn, *args, **kwargs)))
            if not self._idle.acquire(blocking=False) and self._started < self._max:
                self._started += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        return made

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See Executor; returns at once. What runs goes on until it ends or the process does."""
        with self._lock:
            self._closed = True
            while cancel_futures:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is not _END:
                    job[0].cancel()
            for _ in range(self._started):
                self._jobs.put(_END)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not _END:
            made, call = job
            if made.set_running_or_notify_cancel():
                try:
                    made.set_result(call())
                except BaseException as error:  # noqa: BLE001  # whatever it is, it belongs to whoever waits for it
                    made.set_exception(error)
            del job, made, call  # an idle thread holds nobody's data
            self._idle.release()
