"""Claim-check blobs: values too large for an event, stored once under their sha256 before the event that names them.

A blob of at most BLOB_CHUNK_BYTES is one message; a larger one is chunks `<sha>.<n>` and, last of all, a manifest under
the plain subject, so that a blob that can be found is whole. A second put of the same bytes in the same run changes
nothing.
"""

import asyncio
from collections import OrderedDict
from typing import Final

import msgspec

from headrace.contracts import names, subjects
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.errors import CorruptError, NotFoundError, StorageFullError, TooLargeError
from headrace.contracts.ids import root_of
from headrace.runtime.eventlog import EventLog

MANIFEST_HEADER: Final = "Headrace-Blob-Chunks"
CHUNKS_AT_ONCE: Final = 8
"""Appends under way for one blob: 8 MB, a quarter of what a connection allows."""
CACHE_BYTES_MAX: Final = 64 * 1024 * 1024
"""One value of the largest size, or a thousand of the smallest that travel by reference."""


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    chunks: int
    size: int


async def put(log: EventLog, tenant: str, run: str, data: bytes) -> str:
    """Store bytes for a run's tree; gives the reference `<root run>/<sha256>`.

    Raises:
        TooLargeError: more than VALUE_BYTES_MAX.
        StorageFullError, UnavailableError, UnknownOutcomeError: not known to be stored; putting again is safe.
    """
    if len(data) > names.VALUE_BYTES_MAX:
        message = f"a value of {len(data)} bytes; at most {names.VALUE_BYTES_MAX} are stored"
        raise TooLargeError(message)
    ref = f"{root_of(run)}/{sha256_hex(data)}"
    if len(data) <= names.BLOB_CHUNK_BYTES:
        await _put_once(log, subjects.blob(tenant, ref), data, {})
        return ref
    if await log.last(subjects.BLOBS, subjects.blob(tenant, ref)) is not None:
        return ref  # the manifest is there, so everything is
    starts = range(0, len(data), names.BLOB_CHUNK_BYTES)
    for first in range(0, len(starts), CHUNKS_AT_ONCE):
        numbers = range(first, min(first + CHUNKS_AT_ONCE, len(starts)))
        chunks = (data[starts[number] : starts[number] + names.BLOB_CHUNK_BYTES] for number in numbers)
        puts = (
            _put_once(log, subjects.blob(tenant, ref, number), chunk, {})
            for number, chunk in zip(numbers, chunks, strict=True)
        )
        await asyncio.gather(*puts)
    manifest = msgspec.json.encode(_Manifest(chunks=len(starts), size=len(data)))
    await _put_once(log, subjects.blob(tenant, ref), manifest, {MANIFEST_HEADER: str(len(starts))})
    return ref


async def _put_once(log: EventLog, subject: str, data: bytes, headers: dict[str, str]) -> None:
    """One message a subject. The same error says "there is one already" and "full": look before believing it."""
    try:
        await log.append(subject, data, headers=headers or None)
    except StorageFullError:
        if await log.last(subjects.BLOBS, subject) is None:
            raise


async def get(log: EventLog, tenant: str, ref: str, *, size_max: int = names.VALUE_BYTES_MAX) -> bytes:
    """The bytes behind a reference, checked against their hash.

    Raises:
        NotFoundError: nothing is stored there. CorruptError: what is stored is not what was named.
        TooLargeError: more than `size_max` bytes.
    """
    stored = await log.last(subjects.BLOBS, subjects.blob(tenant, ref))
    if stored is None:
        message = f"no blob {ref}"
        raise NotFoundError(message)
    data = stored.body
    if MANIFEST_HEADER in stored.headers:
        manifest = msgspec.json.decode(stored.body, type=_Manifest)
        if manifest.size > size_max:
            message = f"blob {ref} has {manifest.size} bytes; at most {size_max} are read here"
            raise TooLargeError(message)
        data = await _chunks(log, tenant, ref, manifest)
    if len(data) > size_max:
        message = f"blob {ref} has {len(data)} bytes; at most {size_max} are read here"
        raise TooLargeError(message)
    if sha256_hex(data) != ref.partition("/")[2]:
        message = f"blob {ref}: the stored bytes have another hash"
        raise CorruptError(message)
    return data


async def _chunks(log: EventLog, tenant: str, ref: str, manifest: _Manifest) -> bytes:
    """All chunks in one pass over their subjects; two writers at once may have stored them in any order."""
    prefix = subjects.blob(tenant, ref) + "."
    found = {stored.subject: stored.body async for stored in log.read(subjects.BLOBS, (prefix + "*",))}
    for number in range(manifest.chunks):
        if f"{prefix}{number}" not in found:
            message = f"blob {ref} lacks chunk {number} of {manifest.chunks}"
            raise CorruptError(message)
    return b"".join(found[f"{prefix}{number}"] for number in range(manifest.chunks))


async def adopt(log: EventLog, tenant: str, ref: str, run: str) -> str:
    """Store what another run holds for this run's tree as well, chunk by chunk; gives the new reference.

    Raises:
        NotFoundError: nothing is stored there (any more). CorruptError: it lacks a chunk. As `put`.
    """
    own = f"{root_of(run)}/{ref.partition('/')[2]}"
    if await log.last(subjects.BLOBS, subjects.blob(tenant, own)) is not None:
        return own
    stored = await log.last(subjects.BLOBS, subjects.blob(tenant, ref))
    if stored is None:
        message = f"no blob {ref}"
        raise NotFoundError(message)
    headers: dict[str, str] = {}
    if MANIFEST_HEADER in stored.headers:
        headers = {MANIFEST_HEADER: stored.headers[MANIFEST_HEADER]}
        manifest = msgspec.json.decode(stored.body, type=_Manifest)
        for number in range(manifest.chunks):
            chunk = await log.last(subjects.BLOBS, subjects.blob(tenant, ref, number))
            if chunk is None:
                message = f"blob {ref} lacks chunk {number} of {manifest.chunks}"
                raise CorruptError(message)
            await _put_once(log, subjects.blob(tenant, own, number), chunk.body, {})
    await _put_once(log, subjects.blob(tenant, own), stored.body, headers)
    return own


class BlobCache:
    """Blobs by reference, bounded by their bytes; the one used longest ago goes first. A blob never changes."""

    def __init__(self, log: EventLog, *, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._log, self._bytes_max = log, bytes_max
        self._blobs: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._bytes = 0

    async def get(self, tenant: str, ref: str, *, size_max: int = names.VALUE_BYTES_MAX) -> bytes:
        """As `get`."""
        key = (tenant, ref)
        data = self._blobs.get(key)
        if data is not None and len(data) <= size_max:
            self._blobs.move_to_end(key)
            return data
        data = await get(self._log, tenant, ref, size_max=size_max)
        if key not in self._blobs:
            self._blobs[key] = data
            self._bytes += len(data)
        while self._bytes > self._bytes_max and len(self._blobs) > 1:
            _, dropped = self._blobs.popitem(last=False)
            self._bytes -= len(dropped)
        return data
