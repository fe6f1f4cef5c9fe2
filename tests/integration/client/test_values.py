"""Values look the same wherever they are held."""

import msgspec
from tests.builders import RUN

from headrace.client.values import resolve
from headrace.contracts import subjects
from headrace.contracts.codec import encode, inline
from headrace.contracts.envelope import ItemResult, Part, Value
from headrace.contracts.failure import Failure
from headrace.runtime import blobs
from headrace.runtime.jetstream import JetStreamBroker
from headrace.runtime.streams import migrate


async def stored(broker: JetStreamBroker, value: object) -> str:
    return await blobs.put(broker, "default", RUN, msgspec.json.encode(value))


async def test_inline_by_reference_and_one_of_a_list(broker: JetStreamBroker) -> None:
    """The author of a pipeline cannot tell them apart, and nor can who reads the result."""
    await migrate(broker)
    ref = await stored(broker, [{"n": 1}, {"n": 2}])
    assert ref.startswith(RUN + "/")
    assert await resolve(broker, "default", inline({"n": 2})) == {"n": 2}
    assert await resolve(broker, "default", Value(ref=ref, size=17)) == [{"n": 1}, {"n": 2}]
    assert await resolve(broker, "default", Value(ref=ref, size=17, index=1)) == {"n": 2}
    assert subjects.blob("default", ref).startswith("hr.blob.default.")


async def test_the_result_of_a_foreach_is_composed(broker: JetStreamBroker) -> None:
    """Inline, by reference or in parts, with items that are by reference themselves."""
    await migrate(broker)
    large = await stored(broker, "large")
    results = (
        ItemResult(status="succeeded", value=inline("small")),
        ItemResult(status="succeeded", value=Value(ref=large, size=7)),
        ItemResult(status="failed", failure=Failure(code="timeout", message="late")),
    )
    expected = {
        "items": ["small", "large", None],
        "failed": [{"index": 2, "code": "timeout", "message": "late"}],
        "counts": {"total": 3, "succeeded": 2, "failed": 1, "skipped": 0},
    }
    here = Value(json=msgspec.Raw(encode(results)), form="items")
    there = Value(ref=await blobs.put(broker, "default", RUN, encode(results)), size=1, form="items")
    assert await resolve(broker, "default", here) == expected
    assert await resolve(broker, "default", there) == expected
    refs = [await blobs.put(broker, "default", RUN, encode(piece)) for piece in (results[:2], results[2:])]
    parts = tuple(Part(ref=ref, size=1, count=count) for ref, count in zip(refs, (2, 1), strict=True))
    assert await resolve(broker, "default", Value(parts=parts, form="items", count=3)) == expected
