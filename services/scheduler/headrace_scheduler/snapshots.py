"""Snapshots of a partition's open runs: a cache, verified by content before it is believed.

Two slots a partition are written in turn, `snap.<part>.<slot>.<n>`; then `head.<part>` names the slot, its hash
and its sequence. A crash in between leaves the old head and its slot untouched. Whatever is missing, torn or of
another release is no snapshot: the history is read instead.
"""

import logging
from typing import Final

import msgspec

from headrace.contracts import names, subjects
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.errors import RetryableError, UnknownOutcomeError
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.eventlog import Broker
from headrace_scheduler.cron import Cron
from headrace_scheduler.key import Key
from headrace_scheduler.records import Run

log = logging.getLogger("headrace.scheduler")

FORMAT: Final = 7
"""Raised whenever the state's shape changes: older snapshots are then not read."""
CHUNK_BYTES: Final = names.BLOB_CHUNK_BYTES
BYTES_MAX: Final = 256 * 1024 * 1024
"""A partition of 50,000 open runs at 5 KB each; beyond that the history is read instead."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Open runs and all pseudo-runs as of a sequence."""

    part: int
    seq: int
    runs: list[Run]
    schedules: list[Cron] = []
    keys: list[Key] = []
    format: int = FORMAT


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Which slot holds the newest snapshot."""

    slot: int
    chunks: int
    sha: str
    seq: int
    format: int = FORMAT


def encode(snapshot: Snapshot) -> bytes:
    """The bytes of a snapshot."""
    return msgspec.json.encode(snapshot)


async def store(broker: Broker, part: int, seq: int, data: bytes) -> None:
    """Write a snapshot and make it the newest. A failure costs time after the next takeover, nothing else."""
    if len(data) > BYTES_MAX:
        log.warning("snapshot.too_large", extra={"partition": part, "bytes": len(data)})
        return
    try:
        head = await _head(broker, part)
        slot = 0 if head is None else 1 - head.slot
        chunks = range(0, max(1, len(data)), CHUNK_BYTES)
        for number, start in enumerate(chunks):
            subject = subjects.kv(subjects.SNAPSHOTS, f"snap.{part:02d}.{slot}.{number}")
            await broker.append(subject, data[start : start + CHUNK_BYTES])
            crashpoint("inside_snapshot")
        crashpoint("snapshot_before_head")
        body = msgspec.json.encode(Head(slot=slot, chunks=len(chunks), sha=sha256_hex(data), seq=seq))
        await broker.append(subjects.kv(subjects.SNAPSHOTS, f"head.{part:02d}"), body)
    except (RetryableError, UnknownOutcomeError) as error:
        log.warning("snapshot.failed", extra={"partition": part, "why": str(error)})


async def load(broker: Broker, part: int) -> Snapshot | None:
    """The newest snapshot that is whole, or None: then the history has to be read."""
    head = await _head(broker, part)
    if head is None or head.format != FORMAT:
        return None
    data = bytearray()
    for number in range(head.chunks):
        stored = await broker.last(
            subjects.SNAPSHOTS, subjects.kv(subjects.SNAPSHOTS, f"snap.{part:02d}.{head.slot}.{number}")
        )
        if stored is None:
            log.warning("snapshot.incomplete", extra={"partition": part})
            return None
        data += stored.body
    if sha256_hex(bytes(data)) != head.sha:
        log.warning("snapshot.damaged", extra={"partition": part})
        return None
    try:
        snapshot = msgspec.json.decode(bytes(data), type=Snapshot)
    except msgspec.DecodeError as error:
        log.warning("snapshot.unreadable", extra={"partition": part, "why": str(error)})
        return None
    return snapshot if snapshot.part == part else None


async def _head(broker: Broker, part: int) -> Head | None:
    stored = await broker.last(subjects.SNAPSHOTS, subjects.kv(subjects.SNAPSHOTS, f"head.{part:02d}"))
    if stored is None:
        return None
    try:
        return msgspec.json.decode(stored.body, type=Head)
    except msgspec.DecodeError as error:
        log.warning("snapshot.head_unreadable", extra={"partition": part, "why": str(error)})
        return None
