"""A provider that is down, seen from the command line: the step waits, says why and until when, and fails nothing."""

from pathlib import Path

from tests.e2e.command import Started, headrace, lines

# `from headrace.cli.breakers` is what is called here

DOWN = "answers: [{error: unavailable, message: down}]\n"
ASK = (
    "pipeline: ask\nsteps:\n  say:\n    llm: {model: script/down.yaml, prompt: hi, allow_unpriced: true}\n"
    "    retry: {attempts: 9, initial: 1ms, max: 2ms}\n"
)


def test_otp_s13_a_parked_step_and_its_breaker_say_until_when(tmp_path: Path) -> None:
    """Five failures, and the sixth attempt is deferred: `show` and `breakers` tell the same story."""
    (tmp_path / "down.yaml").write_text(DOWN)
    (tmp_path / "ask.yaml").write_text(ASK)
    none = headrace(tmp_path, "breakers")
    assert none.returncode == 69, "nothing runs here yet"
    with Started(tmp_path, "run", "ask.yaml", "--json") as started:
        deferred = lambda: [each for each in started.objects if each.get("timer") == "deferred"]  # noqa: E731
        started.until(deferred, what="a deferred order")
        (event,) = deferred()
        assert event["attempt"] == 6
        assert event["failure"]["code"] == "breaker_open"
        assert "unavailable: down" in event["failure"]["message"]
        shown = lines(headrace(tmp_path, "show", event["run"], "--json").stdout)[0]
        step = next(step for step in shown["steps"] if step["path"] == "say")
        assert (step["status"], step["attempts"]) == ("waiting", 6)
        assert step["reason"].startswith("breaker_open: breaker script-down-yaml-")
        (breaker,) = lines(headrace(tmp_path, "breakers", "--json").stdout)
        assert (breaker["state"], breaker["provider"], breaker["model"]) == ("open", "script", "down.yaml")
        assert breaker["cause"] == "unavailable: down"
        assert breaker["due_ms"] > breaker["since_ms"]
        table = headrace(tmp_path, "breakers").stdout
        assert "unavailable: down" in table
        assert "in " in table
