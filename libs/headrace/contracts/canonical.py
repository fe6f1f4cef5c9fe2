"""Canonical JSON (RFC 8785) and the hashes made over it.

msgspec's sorted encoding already is RFC 8785 where no float and no character beyond the basic plane is inside: same
escapes, same key order. Only the rest takes the slower library, so ids cost about 1 µs on the hot path.
One deviation, needed because our integers are 64 bit while RFC 8785 stops at 2**53: larger integers stay integers.
"""

import hashlib
import re
from typing import Any

import msgspec
import rfc8785

_NEEDS_LIBRARY = re.compile(rb"(?:^|[:,\[])-?[0-9]+[.eE]|[\xf0-\xf4]")
"""Something like a float where a value may stand (also inside text, which costs time but not correctness), or the first
byte of a character whose place among keys differs between UTF-16 and UTF-8."""
_encoder = msgspec.json.Encoder(order="sorted")
_EXACT_INT_MAX = 2**53 - 1


def canonical_json(value: Any) -> bytes:
    """The one byte string for a JSON value or struct: equal values give equal bytes in every process and release.

    For hashes only, never for storage: it writes 1.0 as 1.
    """
    fast = _encoder.encode(value)
    if not _NEEDS_LIBRARY.search(fast):
        return fast
    return rfc8785.dumps(_spell_large_ints(msgspec.json.decode(fast)))


def _spell_large_ints(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int() if abs(value) > _EXACT_INT_MAX:
            return {"$int": str(value)}
        case list():
            return [_spell_large_ints(item) for item in value]
        case dict():
            return {key: _spell_large_ints(item) for key, item in value.items()}
    return value


def sha256_hex(data: bytes) -> str:
    """sha256 in lower-case hex: names of blobs and digests of definitions."""
    return hashlib.sha256(data).hexdigest()


def blake2b_hex(data: bytes, *, digest_bytes: int = 16) -> str:
    """blake2b in lower-case hex, 128 bits by default: ids of events."""
    return hashlib.blake2b(data, digest_size=digest_bytes).hexdigest()
