"""Log lines are JSON objects that name their event and their run."""

import io
import json
import logging
from typing import Any

import pytest

from headrace.runtime.logging import JsonFormatter, bind, hide_with, stop_hiding


@pytest.fixture
def lines() -> Any:
    """A logger and what it wrote, as objects."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(service="monitor", instance="m-1"))
    log = logging.getLogger("test.logging")
    log.addHandler(handler)
    log.propagate = False
    yield log, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    log.removeHandler(handler)
    log.propagate = True


def test_a_line_has_event_fields_and_the_bound_run(lines: Any) -> None:
    """Whoever logs inside `bind` need not know the run."""
    log, read = lines
    with bind(run_id="r1", step_id="fetch", attempt=2, trace_id="t"), bind(attempt=3):
        log.warning("step.retry_scheduled", extra={"delay_s": 1.5})
    log.warning("outside")
    first, second = read()
    assert {key: first[key] for key in ("event", "level", "service", "run_id", "step_id", "attempt", "delay_s")} == {
        "event": "step.retry_scheduled",
        "level": "warning",
        "service": "monitor",
        "run_id": "r1",
        "step_id": "fetch",
        "attempt": 3,
        "delay_s": 1.5,
    }
    assert "run_id" not in second


def test_an_error_has_its_stack_on_the_same_line(lines: Any) -> None:
    """One line per event, whatever is in it."""
    log, read = lines
    try:
        msg = "line\nbreak"
        raise ValueError(msg)
    except ValueError as error:
        log.error("failed", exc_info=error)
    (line,) = read()
    assert line["error"] == "ValueError: line\nbreak"
    assert "test_logging.py" in line["stack"]


def test_a_field_that_is_no_json_is_still_logged(lines: Any) -> None:
    """A log call never fails for its fields."""
    log, read = lines
    log.warning("odd", extra={"what": {1, 2}, "who": object})
    assert read()[0]["who"] == repr(object)


def test_what_is_to_be_hidden_is_hidden_in_every_field_and_in_stacks(lines: Any) -> None:
    """Whoever logs it, until whoever knows it is gone."""
    log, read = lines

    def hide(text: str) -> str:
        return text.replace("canary", "[secret]")

    hide_with(hide)
    try:
        raise ValueError("canary")
    except ValueError:
        log.exception("a.canary", extra={"url": "https://x/?canary"})
    finally:
        stop_hiding(hide)
    log.warning("canary")
    first, second = read()
    assert "canary" not in json.dumps(first) and first["url"] == "https://x/?[secret]"
    assert first["error"] == "ValueError: [secret]" and "[secret]" in first["stack"]
    assert second["event"] == "canary"
