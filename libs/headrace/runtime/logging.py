"""Log lines: one JSON object each, an event name and its fields, with the run they belong to.

Standard library only. `bind` puts run, step, attempt and trace id on every line logged inside it, whoever
logs it.
"""

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import IO, Any, Final

import msgspec

from headrace.runtime.clock import rfc3339

_bound: ContextVar[dict[str, Any] | None] = ContextVar("headrace_log_fields", default=None)
_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
STACK_CHARS_MAX: Final = 8_000
"""Of a stack the end is kept: it names the error, and a line stays below what log collectors cut."""


@contextmanager
def bind(*, run_id: str = "", step_id: str = "", attempt: int = 0, trace_id: str = "", **more: Any) -> Iterator[None]:
    """Everything logged inside carries these fields; empty ones are left out."""
    fields = {"run_id": run_id, "step_id": step_id, "attempt": attempt, "trace_id": trace_id} | more
    reset = _bound.set((_bound.get() or {}) | {name: value for name, value in fields.items() if value})
    try:
        yield
    finally:
        _bound.reset(reset)


_hiding: Final[list[Callable[[str], str]]] = []


def hide_with(hide: Callable[[str], str]) -> None:
    """From now on no line of this process is written that did not go through `hide`: secrets never reach a log."""
    _hiding.append(hide)


def stop_hiding(hide: Callable[[str], str]) -> None:
    """Whoever held what was to be hidden is gone."""
    if hide in _hiding:
        _hiding.remove(hide)


class JsonFormatter(logging.Formatter):
    """One line of JSON: time, level, event, service, logger, the bound fields, the call's own fields, the
    error."""

    def __init__(self, *, service: str = "", instance: str = "") -> None:
        super().__init__()
        self._fixed = {name: value for name, value in (("service", service), ("instance", instance)) if value}

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, Any] = {
            "time": rfc3339(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **self._fixed,
            **(_bound.get() or {}),
        }
        line.update((name, value) for name, value in vars(record).items() if name not in _PLAIN)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["error"] = f"{type(error).__name__}: {error}"
            line["stack"] = "".join(traceback.format_exception(error))[-STACK_CHARS_MAX:]
        text = msgspec.json.encode(line, enc_hook=repr).decode()
        for hide in _hiding:
            text = hide(text)
        return text


def configure(level: str, *, service: str = "", instance: str = "", stream: IO[str] | None = None) -> None:
    """Send all log lines of this process to `stream` (standard error) as JSON. Replaces what was configured
    before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service=service, instance=instance))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
