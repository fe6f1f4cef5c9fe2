"""What a command prints: results to standard output, everything else to standard error; errors in one form.

An error is one line, `error: code: message`, and a hint where there is a next thing to do. With `--json` every line is
one JSON object.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from headrace.cli.pointing import pointed
from headrace.contracts import names
from headrace.contracts.errors import DefinitionError, HeadraceError, RetryableError, TerminalError
from headrace.contracts.failure import Failure
from headrace.pipeline.problems import RefusedDefinitionError

HINTS: Final = {
    "storage_full": "free space on the disk and ask again: local mode reserves 3.5 GiB, of at most 3/4 of what is free",
    "in_use": "`headrace runs`, `watch` and `submit` work beside it",
    "unavailable": "`headrace doctor` says what is reachable",
    "unanswered": "`headrace services` shows whether a scheduler runs",
    "denied": "check HEADRACE_NATS_CREDS_FILE, or user and password in HEADRACE_NATS_URL",
    "internal": "this is a mistake of Headrace; with HEADRACE_LOG_LEVEL=debug the place is shown",
    "key_reused": "leave --run-id out, or choose another",
}
"""What to do next, by error code."""
_DRIVING: Final = {
    number: f"\\u{number:04x}"
    for number in (*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(number) not in "\t\n"
}
"""C0 and C1 controls, and marks that turn the direction of what follows."""
TEXT_CHARS_MAX: Final = 500
"""Of a value in a line for people; `--json` has all of it."""


class UsageError(TerminalError):
    """The command line makes no sense."""

    code = "usage"
    exit_code = names.EXIT_USAGE


class PipeGoneError(HeadraceError):
    """Nobody reads what is said any more: nothing is left to say, and to nobody."""

    code = "pipe_gone"
    exit_code = names.EXIT_PIPE


class OutputError(RetryableError):
    """What was to be said cannot be written, e.g. because a disk is full."""

    code = "output_failed"


def say(text: str = "") -> None:
    """A line of the result. Raises PipeGoneError, OutputError."""
    _write(sys.stdout, "standard output", text)


def note(text: str) -> None:
    """A line about how it goes. Raises PipeGoneError, OutputError."""
    _write(sys.stderr, "standard error", text)


def _write(stream: TextIO, name: str, text: str) -> None:
    try:
        print(printable(text), file=stream, flush=True)
    except BrokenPipeError as error:  # under a name of our own: typer has its own idea of this one
        raise PipeGoneError from error
    except OSError as error:
        msg = f"{name}: {error.strerror}"
        raise OutputError(msg) from error


def printable(text: str) -> str:
    """The text with what would drive a terminal as JSON escapes: models and files say what they like."""
    return text.translate(_DRIVING)


def counted(count: int, thing: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def emit(value: Any) -> None:
    """A JSON object on a line of its own."""
    say(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")))


def value_text(value: Any) -> str:
    """A JSON value for people: text as it is, everything else as JSON, shortened."""
    text = value.replace("\r\n", "\n") if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}… ({len(text)} characters)"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest entry; the last is never padded, so that a narrow terminal wraps nothing else."""
    lines = [tuple(titles), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles) - 1)]
    for line in lines:
        padded = [entry.ljust(width) for entry, width in zip(line, widths, strict=False)]
        say("  ".join([*padded, line[-1]]).rstrip())


def failure_json(failure: Failure) -> dict[str, Any]:
    """A failure as `--json` shows it."""
    shown: dict[str, Any] = {"code": failure.code, "message": failure.message, "retryable": failure.retryable}
    if failure.causes:
        shown["causes"] = list(failure.causes)
    return shown


def report_error(error: Exception, *, as_json: bool) -> int:
    """Show how a command failed; gives its exit code."""
    try:
        return _reported(error, as_json=as_json)
    except (PipeGoneError, OutputError) as unheard:
        for stream in (sys.stdout, sys.stderr):  # the interpreter flushes once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return getattr(error, "exit_code", unheard.exit_code)


def _reported(error: Exception, *, as_json: bool) -> int:
    if isinstance(error, PipeGoneError):
        raise error
    if isinstance(error, OutputError):
        note(f"error: {error.code}: {error}")
        raise error
    if not isinstance(error, HeadraceError):
        if os.environ.get("HEADRACE_LOG_LEVEL") == "debug":
            traceback.print_exception(error)
        _show([Failure(code="internal", message=f"{type(error).__name__}: {error}")], as_json=as_json)
        return names.EXIT_BUG
    if isinstance(error, RefusedDefinitionError) and not as_json:
        for found in error.found:
            note(str(found))
            for line in pointed(found):
                note(line)
        return error.exit_code
    if isinstance(error, DefinitionError) and not as_json:
        for problem in error.problems:
            note(problem)
        return error.exit_code
    reasons: Sequence[Failure] = getattr(error, "reasons", ()) or (error.failure(),)
    _show(reasons, as_json=as_json)
    return error.exit_code


def _show(reasons: Sequence[Failure], *, as_json: bool) -> None:
    if as_json:
        emit({"error": failure_json(reasons[0]), "reasons": [failure_json(reason) for reason in reasons]})
        return
    for reason in reasons:
        note(f"error: {reason.code}: {reason.message}")
    hint = HINTS.get(reasons[0].code)
    if hint is not None:
        note(f"hint: {hint}")
