"""Blobs, for every broker."""

import os

import pytest
from tests.conformance.conftest import ConnectAny

from headrace.contracts import names, subjects
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.errors import CorruptError, NotFoundError, StorageFullError, TooLargeError
from headrace.runtime import blobs
from headrace.runtime.eventlog import Broker, StreamSpec

BLOBS = StreamSpec(
    subjects.BLOBS, ("hr.blob.>",), max_msgs_per_subject=1, discard_new=True, discard_new_per_subject=True
)
LARGE = os.urandom(1000) * 3_456


@pytest.mark.parametrize("data", [b"", b"small", LARGE[:1_000_000], LARGE], ids=["empty", "small", "one", "chunks"])
async def test_what_was_put_is_got(broker: Broker, data: bytes) -> None:
    """One message up to a megabyte, chunks and a manifest above."""
    await broker.ensure_stream(BLOBS)
    ref = await blobs.put(broker, "acme", "root_child", data)
    assert ref == f"root/{sha256_hex(data)}"
    assert await blobs.get(broker, "acme", ref) == data
    stored = (await broker.position(subjects.BLOBS)).last_seq
    assert stored == (1 if len(data) <= names.BLOB_CHUNK_BYTES else 5)


async def test_a_second_put_changes_nothing(backend: ConnectAny) -> None:
    """Small or large, whoever puts."""
    first, second = await backend(), await backend()
    await first.ensure_stream(BLOBS)
    for data in (b"small", LARGE):
        ref = await blobs.put(first, "acme", "r", data)
        before = await first.position(subjects.BLOBS)
        assert await blobs.put(second, "acme", "r", data) == ref
        assert await first.position(subjects.BLOBS) == before


async def test_a_put_that_died_half_way_is_finished_by_the_next(broker: Broker) -> None:
    """Without a manifest there is no blob yet."""
    await broker.ensure_stream(BLOBS)
    ref = f"r/{sha256_hex(LARGE)}"
    await broker.append(subjects.blob("acme", ref, 1), LARGE[1_000_000:2_000_000])
    with pytest.raises(NotFoundError):
        await blobs.get(broker, "acme", ref)
    assert await blobs.put(broker, "acme", "r", LARGE) == ref
    assert await blobs.get(broker, "acme", ref) == LARGE


async def test_a_full_stream_is_believed_only_when_nothing_is_there(broker: Broker) -> None:
    """The broker says "full" in both cases."""
    await broker.ensure_stream(
        StreamSpec(
            subjects.BLOBS,
            ("hr.blob.>",),
            max_bytes=2_000,
            max_msgs_per_subject=1,
            discard_new=True,
            discard_new_per_subject=True,
        )
    )
    await blobs.put(broker, "acme", "r", b"x" * 1_500)
    await blobs.put(broker, "acme", "r", b"x" * 1_500)
    with pytest.raises(StorageFullError):
        await blobs.put(broker, "acme", "r", b"y" * 1_500)


async def test_a_blob_that_is_not_there_or_not_itself(broker: Broker) -> None:
    """Missing, swapped, incomplete, larger than asked for: each is its own error."""
    await broker.ensure_stream(BLOBS)
    with pytest.raises(NotFoundError):
        await blobs.get(broker, "acme", "r/" + "0" * 64)
    await broker.append(subjects.blob("acme", "r/" + "1" * 64), b"something else")
    with pytest.raises(CorruptError):
        await blobs.get(broker, "acme", "r/" + "1" * 64)
    lost = f"r/{'2' * 64}"
    await broker.append(subjects.blob("acme", lost, 0), b"x")
    manifest, headers = b'{"chunks":2,"size":2}', {blobs.MANIFEST_HEADER: "2"}
    await broker.append(subjects.blob("acme", lost), manifest, headers=headers)
    with pytest.raises(CorruptError, match="lacks chunk 1 of 2"):
        await blobs.get(broker, "acme", lost)
    for data in (b"12345", LARGE):
        ref = await blobs.put(broker, "acme", "r", data)
        with pytest.raises(TooLargeError):
            await blobs.get(broker, "acme", ref, size_max=4)
    with pytest.raises(TooLargeError):
        await blobs.put(broker, "acme", "r", bytes(names.VALUE_BYTES_MAX + 1))


async def test_another_run_adopts_a_blob_and_keeps_it(broker: Broker) -> None:
    """In one message and in chunks; adopting again changes nothing, and what is lost cannot be adopted."""
    await broker.ensure_stream(BLOBS)
    for data in (b"12345", LARGE):
        ref = await blobs.put(broker, "acme", "old", data)
        for _ in range(2):
            own = await blobs.adopt(broker, "acme", ref, "new_" + "0" * 16)
            assert own == f"new/{ref.partition('/')[2]}", "of the tree's root"
        assert await blobs.get(broker, "acme", own) == data
    with pytest.raises(NotFoundError):
        await blobs.adopt(broker, "acme", "old/" + "0" * 64, "new")
    lost = f"old/{'2' * 64}"
    manifest, headers = b'{"chunks":2,"size":2}', {blobs.MANIFEST_HEADER: "2"}
    await broker.append(subjects.blob("acme", lost), manifest, headers=headers)
    with pytest.raises(CorruptError, match="lacks chunk 0 of 2"):
        await blobs.adopt(broker, "acme", lost, "new")


async def test_the_cache_is_bounded_by_bytes(broker: Broker) -> None:
    """What was used longest ago goes; what is cached needs no broker."""
    await broker.ensure_stream(BLOBS)
    refs = [await blobs.put(broker, "acme", "r", bytes([number]) * 100) for number in range(3)]
    cache = blobs.BlobCache(broker, bytes_max=250)
    for ref in (refs[0], refs[1], refs[0], refs[2]):
        await cache.get("acme", ref)
    await broker.close()
    assert await cache.get("acme", refs[0]) == b"\x00" * 100
    assert await cache.get("acme", refs[2]) == b"\x02" * 100
    with pytest.raises(Exception, match="not connected"):
        await cache.get("acme", refs[1])
