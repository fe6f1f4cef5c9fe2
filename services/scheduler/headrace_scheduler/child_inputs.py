"""What a child run is given: its own defaults for what its parent does not say, checked as a start is.

The one place where a scheduler loads values of any size, because only a whole object can be checked and completed: one
at a time in the process, and looked through in a thread.
"""

import asyncio
from typing import Any, NamedTuple

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import names, subjects
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import encode_value
from headrace.contracts.envelope import Value
from headrace.contracts.errors import DataError
from headrace.pipeline.inputs import check_inputs, with_defaults
from headrace.pipeline.plan import Plan
from headrace.runtime import blobs
from headrace_scheduler.entries import Shared


class ChildInputsError(DataError):
    """They do not fit what the child declares."""

    code = "inputs_invalid"


class Complete(NamedTuple):
    """Inputs with the child's defaults: to be read, and as its creation names them."""

    inputs: dict[str, Any]
    value: Value


async def completed(shared: Shared, plan: Plan, tenant: str, begun: ev.ChildStarted) -> Complete:
    """The inputs of a child; doing it again gives the same value. What is new and large is stored.

    Raises:
        ChildInputsError: with every reason.
        NotFoundError, CorruptError: what is named is not there.
        UnavailableError, UnknownOutcomeError, StorageFullError: not now.
    """
    given = begun.inputs
    if not given.ref:
        assert isinstance(given.json, msgspec.Raw)
        return await _stored(shared, tenant, begun, *_checked(plan, bytes(given.json)))
    async with shared.large:
        data = await blobs.get(shared.broker, tenant, given.ref, size_max=names.VALUE_BYTES_MAX)
        return await _stored(shared, tenant, begun, *await asyncio.to_thread(_checked, plan, data))


def _checked(plan: Plan, data: bytes) -> tuple[dict[str, Any], bytes]:
    inputs = with_defaults(plan, msgspec.json.decode(data))
    reasons = check_inputs(plan, inputs)
    if reasons:
        raise ChildInputsError("; ".join(reason.message for reason in reasons))
    return inputs, encode_value(inputs)


async def _stored(shared: Shared, tenant: str, begun: ev.ChildStarted, inputs: dict[str, Any], data: bytes) -> Complete:
    if len(data) <= names.INLINE_BYTES_MAX:
        return Complete(inputs, Value(json=msgspec.Raw(data)))
    ref = subjects.blob_ref(begun.child, sha256_hex(data))
    if ref != begun.inputs.ref:
        await blobs.put(shared.broker, tenant, begun.child, data)
    return Complete(inputs, Value(ref=ref, size=len(data)))
