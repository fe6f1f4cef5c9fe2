"""Two histories side by side: the first event in which they differ, and what differs step by step. Pure.

What is compared is what events mean: which step, what came of it, by which values and errors. Ids, sequences, instants,
delays and who did it differ between any two runs, and so does the order of steps that run side by side; none of that is
a difference. Values are compared by content, wherever they are held.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from headrace.client.chronicle import ENDS, Chronicle, Said, around, chronicle_of, path_of
from headrace.client.history import RunView, StepView
from headrace.contracts import events as ev
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import encode_value
from headrace.contracts.envelope import Value
from headrace.contracts.failure import Failure

PASSING: Final = frozenset(
    {"due_ms", "deadline_ms", "not_after_ms", "delay_ms", "jitter", "claim_seq", "request", "traceparent", "tracestate"}
    | {"report", "child", "signal", "answer", "seq", "durability", "input_sha", "parent", "origin"}
)
"""Fields that tell when, where and by whose word, and nothing of what happened. The values that `input_sha` covers are
compared themselves, as outputs of the steps that gave them."""
GIVEN: Final = frozenset({"defdigest", "event", "inputs", "labels"})
"""What a run begins with; the rest says where it stands among others."""
RESULT: Final = ("status", "attempts", "output", "failure")
"""What is the same in a run that took a step over; time and money were spent in the other."""
UNSPOKEN: Final = (ev.RunPaused, ev.RunResumed, ev.TimerFired, ev.StepScheduled, ev.RunForked, ev.ItemsStored)
"""What only tells how it went: an attempt's result says what came of it, and so does the end of a step taken over."""


@dataclass(slots=True, frozen=True)
class Divergence:
    """The first event that the other run does not have at this place. One of the two may have no event there."""

    path: str
    """The step instance; empty for the run's own events."""
    a_seq: int
    b_seq: int
    a: dict[str, Any] | None
    b: dict[str, Any] | None
    differs: tuple[str, ...]
    """Names of the fields that differ, when both have an event of one kind."""


@dataclass(slots=True, frozen=True)
class StepDifference:
    """A step instance that ended, or stands, differently. Every pair is (first run, second run)."""

    path: str
    fields: dict[str, tuple[Any, Any]]


@dataclass(slots=True)
class Differences:
    """What differs between two runs."""

    first: Divergence | None = None
    step: Divergence | None = None
    """The first of a step, where the runs began with different inputs or definitions already."""
    steps: list[StepDifference] = field(default_factory=list)
    run: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """Of the runs as a whole."""

    @property
    def none(self) -> bool:
        """The two mean the same, though not at the same time."""
        return self.first is None


History = Iterable[tuple[int, ev.StoredMessage]]


def compare(a: History, b: History) -> Differences:
    """What differs between two runs, whatever their pipelines."""
    (first, view_a), (second, view_b) = _read(a), _read(b)
    found = _divergences(first, second)
    return Differences(
        first=next(iter(found), None),
        step=next((one for one in found if one.path), None),
        steps=list(_steps(view_a, view_b)),
        run=_differing(_of_run(view_a), _of_run(view_b)),
    )


def _read(history: History) -> tuple[Chronicle, RunView]:
    messages = list(history)
    view = RunView("")
    for seq, message in messages:
        view.take(message, seq=seq)
    return chronicle_of(messages), view


# --- the first divergent event -----------------------------------------------------------------


def _divergences(a: Chronicle, b: Chronicle) -> list[Divergence]:
    """The first of each instance, because steps side by side have no order; the earliest in its own run comes first."""
    taken = {**a.taken, **b.taken}
    by_path_a, by_path_b = _lines(a, taken), _lines(b, taken)
    found: list[tuple[int, Divergence]] = []
    for path in by_path_a | by_path_b:
        one = _diverge(path, by_path_a.get(path, []), by_path_b.get(path, []))
        if one is not None:
            found.append(one)
    return [one for _, one in sorted(found, key=lambda entry: (entry[0], entry[1].path))]


@dataclass(slots=True, frozen=True)
class _Place:
    number: int
    """Of the event in its run, from 0."""
    seq: int
    meaning: dict[str, Any]


def _lines(chronicle: Chronicle, taken: Mapping[str, str]) -> dict[str, list[_Place]]:
    """What was said of each instance. Of a step that one of the two runs took over only its end counts, because how it
    came about is told in one of them alone."""
    lines: dict[str, list[_Place]] = {}
    for number, said in enumerate(chronicle.said):
        path = path_of(said.event)
        if isinstance(said.event, UNSPOKEN) or getattr(said.event, "timer", "") == "deferred":
            continue
        if (path in taken and not isinstance(said.event, ENDS)) or not taken.keys().isdisjoint(around(path)):
            continue
        lines.setdefault(path, []).append(_Place(number, said.seq, meaning(chronicle, said)))
    return lines


def _diverge(path: str, a: list[_Place], b: list[_Place]) -> tuple[int, Divergence] | None:
    for index in range(max(len(a), len(b))):
        one = a[index] if index < len(a) else None
        two = b[index] if index < len(b) else None
        if one is not None and two is not None and one.meaning == two.meaning:
            continue
        places = [place.number for place in (one, two) if place is not None]
        return min(places), Divergence(
            path=path,
            a_seq=0 if one is None else one.seq,
            b_seq=0 if two is None else two.seq,
            a=None if one is None else one.meaning,
            b=None if two is None else two.meaning,
            differs=_names(one, two),
        )
    return None


def _names(one: _Place | None, two: _Place | None) -> tuple[str, ...]:
    if one is None or two is None or one.meaning["event"] != two.meaning["event"]:
        return ()
    keys = {**one.meaning, **two.meaning}
    return tuple(key for key in keys if one.meaning.get(key) != two.meaning.get(key))


def meaning(chronicle: Chronicle, said: Said) -> dict[str, Any]:
    """What an event says, without what differs between any two runs; values as their hashes."""
    event = said.event
    kind = type(event).__struct_config__.tag
    assert isinstance(kind, str)
    told: dict[str, Any] = {"event": kind.removeprefix("io.headrace.").rpartition(".v")[0]}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name in PASSING or value is None or (isinstance(event, ev.RunCreated) and name not in GIVEN):
            continue
        told[name] = _told(value)
    if isinstance(event, ev.StepCompleted) and event.output is None:
        heard = chronicle.reports.get(event.report)
        if heard is not None and isinstance(heard.message, ev.AttemptSucceeded):
            told["output"] = value_hash(heard.message.data.output)
    return told


def _told(value: Any) -> Any:
    match value:
        case Value():
            return value_hash(value)
        case Failure():
            return value.code  # the text may name ids and instants
    return msgspec.to_builtins(value)


def value_hash(value: Value) -> str:
    """sha256 of a value's content, the same inline and by reference, whichever run holds it."""
    if value.parts:
        return sha256_hex("".join(part.ref.rpartition("/")[2] for part in value.parts).encode())
    if not isinstance(value.json, msgspec.Raw):
        if value.parts:
            return sha256_hex(encode_value([part.ref.rpartition("/")[2] for part in value.parts]))
        index = f"[{value.index}]" if value.index >= 0 else ""
        return value.ref.rpartition("/")[2] + index
    plain = msgspec.json.decode(value.json)
    if value.form == "items":
        plain = _without_owner(plain)
    return sha256_hex(encode_value(plain))


def _without_owner(items: Any) -> Any:
    """Results of a map, whose references name the run that holds them."""
    for item in items:
        held = item.get("value") or {}
        if "ref" in held:
            held["ref"] = held["ref"].rpartition("/")[2]
    return items


# --- the summary -------------------------------------------------------------------------------


def _steps(a: RunView, b: RunView) -> Iterator[StepDifference]:
    taken = {step.path for view in (a, b) for step in view.steps.values() if step.taken}
    for path in {**a.steps, **b.steps}:
        if not taken.isdisjoint(around(path)):
            continue  # it is known in one of the two alone
        fields = _differing(_of_step(a.steps.get(path)), _of_step(b.steps.get(path)))
        if path in taken:
            fields = {name: pair for name, pair in fields.items() if name in RESULT}
        if set(fields) - {"duration_ms"}:
            yield StepDifference(path, fields)


def _differing(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)}


def _of_step(step: StepView | None) -> dict[str, Any]:
    if step is None:
        return {"status": "absent"}
    told: dict[str, Any] = {"status": step.status, "attempts": step.attempt}
    if step.ended:
        told["duration_ms"] = step.ended_ms - step.began_ms
    if step.output is not None:
        told["output"] = value_hash(step.output)
    if step.failure is not None and step.status != "completed":
        told["failure"] = step.failure.code
    if step.usage is not None:
        told |= msgspec.to_builtins(step.usage)
    return told


def _of_run(view: RunView) -> dict[str, Any]:
    used = [step.usage for step in view.steps.values() if step.usage is not None]
    told = {
        "pipeline": view.pipeline,
        "definition": view.defdigest,
        "status": view.status,
        "inputs": None if view.inputs is None else value_hash(view.inputs),
        "outputs": None if view.outputs is None else value_hash(view.outputs),
        "failure": None if view.failure is None else view.failure.code,
        "duration_ms": view.updated_ms - view.created_ms,
        "input_tokens": sum(one.input_tokens for one in used),
        "output_tokens": sum(one.output_tokens for one in used),
    }
    return told


def differences_json(found: Differences) -> dict[str, Any]:
    """Plain data, for programs."""
    made: dict[str, Any] = msgspec.to_builtins(found)
    return made
