"""Values as users see them: inline and by reference look the same."""

from typing import Any

import msgspec

from headrace.contracts.envelope import ItemResult, Value
from headrace.runtime import blobs
from headrace.runtime.eventlog import EventLog
from headrace.runtime.values import foreach_output, item_refs, joined


async def resolve(log: EventLog, tenant: str, value: Value) -> Any:
    """The JSON value.

    Raises:
        NotFoundError: what it refers to is not stored (any more). CorruptError: what is stored is something else.
    """
    if isinstance(value.json, msgspec.Raw):
        data = bytes(value.json)
    elif value.parts:
        data = joined([await blobs.get(log, tenant, part.ref) for part in value.parts])
    else:
        data = await blobs.get(log, tenant, value.ref)

    if value.form == "items":
        results = msgspec.json.decode(data, type=tuple[ItemResult, ...])
        stored = {ref: msgspec.json.decode(await blobs.get(log, tenant, ref)) for ref in item_refs(results)}
        return foreach_output(results, stored)
    whole = msgspec.json.decode(data)
    return whole[value.index] if value.index >= 0 else whole
