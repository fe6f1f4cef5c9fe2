"""What is known of earlier results while a decision is made: found, not there, or not looked for yet. Pure data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from headrace.contracts.canonical import sha256_hex
from headrace.contracts.decisions import Origin
from headrace.contracts.envelope import Value


@dataclass(slots=True, frozen=True)
class Found:
    """An earlier result, checked against its hash, and held where this run can read it."""

    value: Value
    origin: Origin


@dataclass(slots=True)
class Reuse:
    """Of one decision."""

    found: Mapping[str, Found | None] = field(default_factory=dict)
    """By digest of the key; None where it was looked for and nothing is there."""
    wanted: dict[str, None] = field(default_factory=dict)
    """To be looked for before the steps that ask can go on."""


def sha_of(value: Value) -> str:
    """The sha256 of a value's JSON bytes; empty for one that an executor cannot have given."""
    if value.ref:
        return value.ref.partition("/")[2]
    return sha256_hex(bytes(value.json)) if isinstance(value.json, msgspec.Raw) else ""
