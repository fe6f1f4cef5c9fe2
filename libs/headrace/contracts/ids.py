"""Identities that every process computes alike. Pure: no clock, no random source."""

import re
from typing import Final

import msgspec

from headrace.contracts import names
from headrace.contracts.canonical import blake2b_hex, sha256_hex

TENANT_RE: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
RUN_RE: Final = re.compile(r"[A-Za-z0-9-]{1,64}(?:_[a-z0-9]{16})*")
CLIENT_RUN_RE: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
PSEUDO_RE: Final = re.compile(r"[0-9a-f]{32}_(?:cron|key)")
"""A pseudo-run: no id of a run, because a child's has sixteen characters there and a client's no `_`."""
PSEUDO_MARKS: Final = ("_cron.", "_key.")
"""One stands in every subject of a pseudo-run, and in hardly any other."""
COMMAND_RE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAME_RE: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_parts: Final = msgspec.json.Encoder()
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def fnv1a32(text: str) -> int:
    """FNV-1a, 32 bit: the broker's own `partition()` mapping hashes a token the same way."""
    digest = 0x811C9DC5
    for byte in text.encode():
        digest = ((digest ^ byte) * 0x01000193) & 0xFFFFFFFF
    return digest


def root_of(run: str) -> str:
    """The root run's id: a child carries it before its first `_`."""
    return run.partition("_")[0]


def partition_of(run: str) -> int:
    """0 … 31. A tree of runs lives in one partition, because children carry their root's id."""
    return fnv1a32(root_of(run)) % names.PARTITIONS


def child_run_id(parent: str, path: str) -> str:
    """The child that `parent` starts at step instance `path`; the same in every process."""
    return f"{root_of(parent)}_{blake2b_hex(f'{parent}/{path}'.encode(), digest_bytes=8)}"


def schedule_id(tenant: str, pipeline: str, trigger: int) -> str:
    """The pseudo-run of a pipeline's schedule number `trigger`, from 0; its partition is that of the hash."""
    return f"{blake2b_hex(_parts.encode((tenant, pipeline, trigger)))}_cron"


def key_id(tenant: str, pipeline: str, key: str) -> str:
    """The pseudo-run of a concurrency key: runs of one pipeline with the same text are counted together."""
    return f"{blake2b_hex(_parts.encode((tenant, pipeline, key)))}_key"


def scheduled_run_id(schedule: str, due_ms: int) -> str:
    """The run that a schedule starts for a due instant; the same in every process, so that two fire it once."""
    return blake2b_hex(f"{schedule}/{due_ms}".encode())


def run_id_of_command(command_id: str) -> str:
    """A run id for a start that named none: the command's own id where it fits, else a hash of it."""
    if CLIENT_RUN_RE.fullmatch(command_id):
        return command_id
    return blake2b_hex(command_id.encode())


def command_token(command_id: str) -> str:
    """A command's id as a subject token: itself where it fits, else a hash of it."""
    if COMMAND_RE.fullmatch(command_id):
        return command_id
    return blake2b_hex(command_id.encode())


def ulid(time_ms: int, random80: int) -> str:
    """26 characters that sort by time. Both parts come from the caller's clock and entropy."""
    value = (time_ms << 80) | random80
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -5, -5))


def event_id(*parts: str | int | None, data: bytes | None = None) -> str:
    """The deterministic id of a fact: a hash of what makes it unique.

    Args:
        parts: In this order: type, tenant, run, step instance, attempt, offer, decision version; trailing ones omitted
            where they do not apply. Never a time or a source.
        data: For reports the canonical JSON of the content: without it two results at one place would share an id and
            the broker's deduplication would hide a lost write.
    """
    whole = _parts.encode(parts)  # text, integers and null in a list: RFC 8785 already
    return blake2b_hex(whole if data is None else whole + data)


def idempotency_key(run: str, path: str) -> str:
    """The key that every attempt of a step sends to the outside world."""
    return f"{run}/{path}"


def token(free_name: str) -> str:
    """A subject token for a free name: lower case, others → `-`, plus 6 hex of sha256 where anything changed."""
    plain = re.sub(r"[^a-z0-9_-]", "-", free_name.lower())
    if plain == free_name and plain:
        return plain
    return f"{plain}-{sha256_hex(free_name.encode())[:6]}"
