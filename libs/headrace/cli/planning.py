"""`plan` and `graph`: the graph that will run, with its defaults applied, as text, data or a picture. Runs nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace.cli.inputs import parse_inputs
from headrace.cli.output import emit, report_error, say
from headrace.cli.pricing import price_table
from headrace.contracts import names
from headrace.contracts.errors import InputFileError
from headrace.contracts.money import usd_text
from headrace.pipeline.bundle import load_bundle
from headrace.pipeline.inputs import with_defaults
from headrace.pipeline.mermaid import mermaid
from headrace.pipeline.overview import overview


def plan_command(file: Path, pairs: Sequence[str], *, as_json: bool) -> int:
    """Show what would run."""
    prices = price_table()
    plan = load_bundle(file, prices=prices).plan
    given = parse_inputs(pairs, plan.inputs_schema["properties"])
    found = overview(plan, with_defaults(plan, given), prices=prices)
    if as_json:
        emit(found)
    else:
        for line in _lines(found):
            say(line)
    return names.EXIT_OK


def graph_command(file: Path, *, form: str, output: Path | None) -> int:
    """Draw it."""
    plan = load_bundle(file, prices=price_table()).plan
    if form == "svg":
        from headrace.pipeline.drawing import svg  # the layout library is for this alone

        text = svg(plan)
    else:
        text = mermaid(plan)
    if output is None:
        say(text.rstrip("\n"))
        return names.EXIT_OK
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        return report_error(InputFileError(f"{output}: {error.strerror}"), as_json=False)
    return names.EXIT_OK


def _lines(found: dict[str, Any]) -> list[str]:
    limits = found["limits"]
    lines = [
        f"{found['pipeline']}  {found['digest'][:12]}  deadline {_time(limits['deadline_ms'])}, "
        f"at most {limits['max_parallel']} in flight{', workspace' if found['workspace'] else ''}"
    ]
    lines += [f"  budget: {_pairs(limits['budget'])}"] if "budget" in limits else []
    lines += [f"  one at a time by: {_pairs(limits['concurrency'])}"] if "concurrency" in limits else []
    lines += [f"  starts on {_pairs(trigger)}" for trigger in found["triggers"]]
    depth = 0
    for step in sorted(found["steps"], key=_place):
        depth = step["path"].count("/")
        lines.append("  " * (depth + 1) + _step(step))
    lines += [f"calls of {kind}: {_calls(calls)}" for kind, calls in found["calls"].items()]
    return [*lines, *_cost(found)]


def _place(step: dict[str, Any]) -> tuple[Any, ...]:
    """Steps inside of a step come after it; in one block in the order in which they may start."""
    return tuple(step["path"].split("/")[:-1]), step["level"], step["path"]


def _step(step: dict[str, Any]) -> str:
    parts = [f"{step['level'] + 1}. {step['path']}", " ".join(filter(None, (step["kind"], step.get("does", ""))))]
    if "foreach" in step:
        foreach = step["foreach"]
        count = f"{foreach['count']} items" if "count" in foreach else foreach["items"]
        parts.append(f"for each of {count}, {foreach['max_parallel']} at a time")
    if "loop" in step:
        parts.append(f"at most {step['loop']['max_iterations']} iterations")
    parts += [f"when {step['when']}"] if "when" in step else []
    parts += [f"after {', '.join(sorted((*step['needs'], *step['after'])))}"] if step["needs"] or step["after"] else []
    parts += [f"stands in for {step['standby_for']}"] if "standby_for" in step else []
    if "queue" in step:
        retry = step["retry"]
        times = f"{_time(step['timeout_ms'])} an attempt, {_time(step['deadline_ms'])} in all"
        parts.append(f"queue {step['queue']}  {retry['attempts']} attempts, {times}")
    return "  ".join(parts)


def _calls(calls: dict[str, Any]) -> str:
    known = str(calls["usual"]) if calls["least"] == calls["usual"] else f"{calls['least']} to {calls['usual']}"
    unknown = f", and those of {', '.join(calls['unknown'])} for each item" if calls["unknown"] else ""
    return f"{known}{unknown}; with every retry {calls['repeated']}{' and more' if calls['unknown'] else ''}"


def _cost(found: dict[str, Any]) -> list[str]:
    if "cost" not in found:
        return []
    cost = found["cost"]
    unknown = f", and that of {', '.join(cost['unknown'])}" if cost["unknown"] else ""
    most = f"{usd_text(cost['usual_usd_nanos'])}{unknown}"
    repeated = f"{usd_text(cost['repeated_usd_nanos'])}{' and more' if cost['unknown'] else ''}"
    return [f"cost: at most {most}; with every retry {repeated} (what expressions add to prompts is not counted)"]


def _pairs(record: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in record.items() if value != "")


def _time(ms: int) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms % size == 0 and ms:
            return f"{ms // size}{unit}"
    return f"{ms}ms"
