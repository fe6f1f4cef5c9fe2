"""What a run takes over from another one, held by itself: large values are stored again, so that they stay when the
other run is purged.
"""

import asyncio
from typing import Final

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import names, subjects
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import encode
from headrace.contracts.envelope import ItemResult, Part, Value
from headrace.contracts.errors import TooLargeError
from headrace.runtime import blobs
from headrace.runtime.eventlog import EventLog

FORKED_BYTES_MAX: Final = 3 * names.DECISION_BYTES_MAX
"""Of what is taken over, in one decision: three quarters of what a message can hold, some 5,000 steps."""
ITEMS: Final = frozenset({"items", "results"})
"""Forms of values that are arrays of results, each of which may refer to something."""
ITEMS_AT_ONCE: Final = 64
"""Values stored again at a time: the broker answers them together, and other commands find room beside them."""
ITEMS_DEADLINE_S: Final = 300.0
"""For so many values of the largest size; one that takes longer is tried again with the command."""


async def adopted(log: EventLog, tenant: str, run_id: str, taken: ev.Taken) -> ev.Taken:
    """What is taken over, its output held by the run that takes it.

    Raises:
        NotFoundError: a value is not stored (any more). CorruptError: it is not what was named.
    """
    if taken.output is None:
        return taken
    return msgspec.structs.replace(taken, output=await owned(log, tenant, run_id, taken.output))


async def bytes_of(log: EventLog, tenant: str, value: Value) -> bytes:
    """The bytes of a value that is in one piece, wherever it is held. Raises as `adopted`."""
    return bytes(value.json) if isinstance(value.json, msgspec.Raw) else await blobs.get(log, tenant, value.ref)


async def owned(log: EventLog, tenant: str, run_id: str, value: Value) -> Value:
    """The value, with everything that it refers to held by the run. Raises as `adopted`."""
    if value.parts:
        parts = [await _own_part(log, tenant, run_id, part) for part in value.parts]
        return msgspec.structs.replace(value, parts=tuple(parts), size=sum(part.size for part in parts))
    if value.form in ITEMS:
        data = await bytes_of(log, tenant, value)
        own = await _own_items(log, tenant, run_id, data)
        if own != data:
            return await _stored(log, tenant, run_id, own, form=value.form)
    if not value.ref:
        return value
    return msgspec.structs.replace(value, ref=await blobs.adopt(log, tenant, value.ref, run_id))


async def _own_part(log: EventLog, tenant: str, run_id: str, part: Part) -> Part:
    data = await _own_items(log, tenant, run_id, await blobs.get(log, tenant, part.ref))
    return Part(ref=await blobs.put(log, tenant, run_id, data), size=len(data), count=part.count)


async def _own_items(log: EventLog, tenant: str, run_id: str, data: bytes) -> bytes:
    """An array of results whose values the run holds; the same bytes where nothing is held elsewhere."""
    items = msgspec.json.decode(data, type=list[ItemResult])
    held = [number for number, item in enumerate(items) if item.value is not None and item.value.ref]
    for start in range(0, len(held), ITEMS_AT_ONCE):
        numbers = held[start : start + ITEMS_AT_ONCE]
        async with asyncio.timeout(ITEMS_DEADLINE_S):
            own = await asyncio.gather(*(_own_item(log, tenant, run_id, items[number]) for number in numbers))
        for number, item in zip(numbers, own, strict=True):
            items[number] = item
    return encode(items) if held else data


async def _own_item(log: EventLog, tenant: str, run_id: str, item: ItemResult) -> ItemResult:
    assert item.value is not None
    return msgspec.structs.replace(item, value=await owned(log, tenant, run_id, item.value))


async def _stored(log: EventLog, tenant: str, run_id: str, data: bytes, *, form: str) -> Value:
    if len(data) <= names.INLINE_BYTES_MAX:
        return Value(json=msgspec.Raw(data), form=form)
    return Value(ref=await blobs.put(log, tenant, run_id, data), size=len(data), form=form)


async def fitting(log: EventLog, tenant: str, run_id: str, forked: ev.RunForked) -> ev.RunForked:
    """The event, its largest values by reference as far as one decision cannot hold them.

    Raises:
        TooLargeError: there are too many steps all the same.
    """
    sizes = {
        number: len(one.output.json)
        for number, one in enumerate(forked.taken)
        if one.output is not None and isinstance(one.output.json, msgspec.Raw)
    }
    taken, over = list(forked.taken), len(encode(forked)) - FORKED_BYTES_MAX
    for number in sorted(sizes, key=lambda number: (-sizes[number], number)):
        output = taken[number].output
        assert output is not None and isinstance(output.json, msgspec.Raw)
        data = bytes(output.json)
        held = Value(ref=subjects.blob_ref(run_id, sha256_hex(data)), size=len(data), form=output.form)
        spared = len(encode(output)) - len(encode(held))
        if over <= 0 or spared <= 0:
            break
        await blobs.put(log, tenant, run_id, data)
        taken[number] = msgspec.structs.replace(taken[number], output=held)
        over -= spared
    if over > 0:
        message = f"{len(taken)} steps are too many to take over: {over} bytes more than one decision holds"
        raise TooLargeError(message)
    return msgspec.structs.replace(forked, taken=tuple(taken))
