"""What a run takes over is held by itself, however it is held, and fits one decision."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from headrace.client.differences import value_hash
from headrace.client.values import resolve
from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.codec import encode, encode_value, inline
from headrace.contracts.envelope import ItemResult, Part, Value
from headrace.contracts.errors import NotFoundError, TooLargeError
from headrace.runtime import blobs
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import Broker
from headrace.runtime.memory import MemoryBroker, MemoryServer
from headrace.runtime.streams import stream_specs
from headrace_scheduler.adopting import FORKED_BYTES_MAX, adopted, fitting

LARGE = "x" * (names.INLINE_BYTES_MAX + 1)


async def a_broker() -> Broker:
    """With its streams, of which messages may be removed, as the admin does."""
    clock = SystemClock()
    broker = MemoryBroker(MemoryServer(clock), clock)
    for spec in stream_specs():
        await broker.ensure_stream(replace(spec, deny_delete=False))
    return broker


async def by_reference(broker: Broker, value: Any, run: str = "old") -> Value:
    """A value that this run holds."""
    data = encode_value(value)
    return Value(ref=await blobs.put(broker, "default", run, data), size=len(data))


def owners(value: Value) -> set[str]:
    """Runs that hold anything of it, as far as it says so itself."""
    return {ref.partition("/")[0] for ref in (value.ref, *(part.ref for part in value.parts)) if ref}


async def taken_by(broker: Broker, value: Value, run: str = "new") -> Value:
    """The output after it was taken over."""
    taken = await adopted(broker, "default", run, ev.Taken(path="a", status="succeeded", output=value))
    assert taken.output is not None
    return taken.output


async def test_values_and_items_and_parts_are_held_by_the_new_run() -> None:
    """Inline stays inline; what lists of results refer to is held too; the value is the same to everybody."""
    broker = await a_broker()
    large = await by_reference(broker, LARGE)
    results = [ItemResult(status="succeeded", value=value) for value in (inline(1), large)]
    data = encode(results)
    many = encode([*results, ItemResult(status="skipped")] * 400)
    part = Part(ref=await blobs.put(broker, "default", "old", data), size=len(data), count=2)
    forms = {
        "inline": inline({"a": 1}),
        "by reference": large,
        "one of a list": msgspec.structs.replace(await by_reference(broker, [LARGE, 2]), index=1),
        "items": Value(json=msgspec.Raw(data), form="items"),
        "many items": Value(ref=await blobs.put(broker, "default", "old", many), size=len(many), form="items"),
        "parts": Value(parts=(part, part), size=2 * len(data), count=4, form="items"),
    }
    before = {name: await resolve(broker, "default", value) for name, value in forms.items()}
    own = {name: await taken_by(broker, value) for name, value in forms.items()}
    for name, value in own.items():
        assert owners(value) <= {"new"}, name
        if name not in ("many items", "parts"):  # their bytes name who holds what they refer to
            assert value_hash(value) == value_hash(forms[name]), name
    assert own["inline"] == forms["inline"]
    for seq in [stored.seq async for stored in broker.read("HR_BLOBS", ("hr.blob.default.old.>",))]:
        await broker.remove("HR_BLOBS", seq)
    assert {name: await resolve(broker, "default", value) for name, value in own.items()} == before
    with pytest.raises(NotFoundError):
        await taken_by(broker, large, run="third")


async def test_what_is_too_much_for_a_decision_goes_by_reference_the_largest_first() -> None:
    """As much as must, and no more."""
    broker = await a_broker()
    small, middle = "s" * 100, "m" * 50_000
    taken = tuple(
        ev.Taken(path=f"s{number}", status="succeeded", output=inline(small if number % 2 else middle + str(number)))
        for number in range(40)
    )
    forked = ev.RunForked(origin="old", seq=1, version=1, step="end", taken=taken)
    assert len(encode(forked)) > FORKED_BYTES_MAX
    fits = await fitting(broker, "default", "new", forked)
    assert FORKED_BYTES_MAX - 50_100 < len(encode(fits)) <= FORKED_BYTES_MAX
    assert all(one.output is not None and not one.output.ref for one in fits.taken[1::2])
    for one, was in zip(fits.taken, taken, strict=True):
        assert one.output is not None and was.output is not None
        assert await resolve(broker, "default", one.output) == await resolve(broker, "default", was.output)
    assert await fitting(broker, "default", "new", fits) == fits


async def test_too_many_steps_are_refused() -> None:
    """When nothing large is left."""
    taken = tuple(
        ev.Taken(path=f"step-{number}", status="succeeded", output=inline("y" * 100)) for number in range(9_999)
    )
    forked = ev.RunForked(origin="old", seq=1, version=1, step="end", taken=taken)
    with pytest.raises(TooLargeError, match="9999 steps are too many to take over"):
        await fitting(await a_broker(), "default", "new", forked)
