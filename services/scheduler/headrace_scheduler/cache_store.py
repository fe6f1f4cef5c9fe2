"""Earlier results by key, in a bucket that forgets: written after a decision, read before one, never relied on.

Whatever is missing, damaged, or not answered in time is a miss: the step is executed. A result that is held by
reference belongs to the run that gave it; a hit copies it, so that it lives as long as the run that uses it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import msgspec

from headrace.contracts import names, subjects
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import decode_as, encode
from headrace.contracts.decisions import Origin
from headrace.contracts.envelope import Value
from headrace.contracts.errors import HeadraceError, MalformedMessageError, RetryableError, UnknownOutcomeError
from headrace.runtime import blobs
from headrace_scheduler.entries import Entry, Shared
from headrace_scheduler.reuse import Found, sha_of

log = logging.getLogger("headrace.scheduler")

LOOK_WITHIN_S: Final = names.REQUEST_DEADLINE_S
COPY_WITHIN_S: Final = 2 * names.PUBLISH_DEADLINE_S
"""Of the largest value."""
FOUND_MAX: Final = 256
"""Answers kept for one run until it uses them; what was dropped is looked for again."""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lies under a key. The broker's own timestamp says how old it is."""

    run: str
    path: str
    report: str
    sha256: str
    """Of the value's JSON bytes."""
    value: Value


def subject(tenant: str, digest: str) -> str:
    """Where the result of a key lies."""
    return subjects.kv(subjects.CACHE, f"{tenant}.{digest}")


class CacheStore:
    """Looks up and keeps results for the runs of one partition."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def keep(self, entry: Entry, kept: Mapping[str, Found]) -> None:
        """Store new results of a run, beside everything else. One that cannot be stored now is its own alone."""
        for digest, one in kept.items():
            self._note(entry, digest, one)
            self._shared.supervisor.spawn(self._keep(entry.run.tenant, digest, one), "scheduler.cache")

    async def _keep(self, tenant: str, digest: str, kept: Found) -> None:
        origin = kept.origin
        result = Result(run=origin.run, path=origin.path, report=origin.report, sha256=origin.sha256, value=kept.value)
        try:
            await self._shared.broker.append(subject(tenant, digest), encode(result))
        except (RetryableError, UnknownOutcomeError) as error:
            log.info("cache.not_kept", extra={"run_id": origin.run, "step_id": origin.path, "why": str(error)})

    def _note(self, entry: Entry, digest: str, found: Found | None) -> None:
        entry.reused.pop(digest, None)
        entry.reused[digest] = found
        while len(entry.reused) > FOUND_MAX:
            del entry.reused[next(iter(entry.reused))]

    def look_up(self, entry: Entry, digests: Iterable[str], then: Callable[[], Awaitable[None]]) -> None:
        """Find out about these; `entry.reused` has the answers when `then` is called."""
        new = [digest for digest in digests if digest not in entry.looked_up]
        if new:
            entry.looked_up.update(new)
            self._shared.supervisor.spawn(self._look_up(entry, new, then), "scheduler.cache")

    async def _look_up(self, entry: Entry, digests: list[str], then: Callable[[], Awaitable[None]]) -> None:
        try:
            found = await asyncio.gather(*(self._find(entry, digest) for digest in digests))
        finally:
            entry.looked_up.difference_update(digests)
        for digest, one in zip(digests, found, strict=True):
            self._note(entry, digest, one)
        try:
            await then()
        except (RetryableError, UnknownOutcomeError) as error:  # the partition comes back to it
            log.info("cache.waits", extra={"run_id": entry.run.run, "why": str(error)})

    async def _find(self, entry: Entry, digest: str) -> Found | None:
        run = entry.run
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                stored = await self._shared.broker.last(subjects.CACHE, subject(run.tenant, digest))
            if stored is None:
                return None
            result = decode_as(Result, stored.body)
            if not result.value.ref and sha_of(result.value) != result.sha256:
                message = "it has another hash than it says"
                raise MalformedMessageError(message)
            async with asyncio.timeout(COPY_WITHIN_S):
                value = await self._held_by(run.tenant, run.run, result)
        except (HeadraceError, TimeoutError) as error:
            log.warning(
                "cache.unusable", extra={"run_id": run.run, "key": digest, "why": f"{type(error).__name__}: {error}"}
            )
            return None
        origin = Origin(
            run=result.run, path=result.path, report=result.report, at_ms=stored.time_ms, sha256=result.sha256
        )
        return Found(value, origin)

    async def _held_by(self, tenant: str, run: str, result: Result) -> Value:
        value = result.value
        if not value.ref or value.ref == subjects.blob_ref(run, result.sha256):
            return value
        async with self._shared.large:
            data = await blobs.get(self._shared.broker, tenant, value.ref)
            if sha256_hex(data) != result.sha256:
                message = "it names a value of another hash than it says"
                raise MalformedMessageError(message)
            return msgspec.structs.replace(value, ref=await blobs.put(self._shared.broker, tenant, run, data))
