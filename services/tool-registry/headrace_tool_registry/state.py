"""The tool catalogue: a fold of `tool-registered` and `tool-disabled`. Pure: no clock, no random source, no
IO."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import msgspec

from headrace.contracts.canonical import canonical_json, sha256_hex
from headrace.contracts.events import StoredMessage, ToolChanged, ToolDisabled, ToolRegistered, ToolSpec

Key = tuple[str, str, str]
"""Tenant, tool, version."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One version of a tool. Its specification never changes; whether it may be called does."""

    spec: ToolSpec
    enabled: bool = True
    waits: bool = False
    """For somebody to approve it."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All tools of all tenants."""

    tools: Mapping[Key, Tool]


EMPTY: Final = Catalogue(tools=MappingProxyType({}))


def evolve(state: Catalogue, message: StoredMessage) -> Catalogue:
    """The catalogue after one message. What is not about tools changes nothing."""
    match message:
        case ToolRegistered(tenant=tenant, data=spec):
            return _put(state, (tenant, spec.tool, spec.version), Tool(spec=spec))
        case ToolDisabled(tenant=tenant, data=name):
            key = (tenant, name.tool, name.version)
            tool = state.tools.get(key)
            return state if tool is None else _put(state, key, replace(tool, enabled=False))
        case ToolChanged(tenant=tenant, data=spec):
            return _changed(state, tenant, spec)
        case _:
            return state


def _changed(state: Catalogue, tenant: str, spec: ToolSpec) -> Catalogue:
    """Every version is off, the new one waits."""
    off = {
        key: replace(tool, enabled=False, waits=False)
        for key, tool in state.tools.items()
        if key[:2] == (tenant, spec.tool)
    }
    waiting = {(tenant, spec.tool, spec.version): Tool(spec=spec, enabled=False, waits=True)}
    return Catalogue(tools=MappingProxyType({**state.tools, **off, **waiting}))


def _put(state: Catalogue, key: Key, tool: Tool) -> Catalogue:
    return Catalogue(tools=MappingProxyType({**state.tools, key: tool}))


def find(state: Catalogue, tenant: str, tool: str, version: str = "") -> ToolSpec | None:
    """An enabled tool; without a version the newest one that is enabled."""
    if version:
        found = state.tools.get((tenant, tool, version))
        return found.spec if found is not None and found.enabled else None
    versions = (spec for spec in enabled(state, tenant) if spec.tool == tool)
    return max(versions, key=lambda spec: version_order(spec.version), default=None)


def enabled(state: Catalogue, tenant: str) -> tuple[ToolSpec, ...]:
    """A tenant's enabled tools, by name and version."""
    specs = (tool.spec for key, tool in state.tools.items() if key[0] == tenant and tool.enabled)
    return tuple(sorted(specs, key=lambda spec: (spec.tool, version_order(spec.version))))


def waiting(state: Catalogue, tenant: str) -> tuple[ToolSpec, ...]:
    """A tenant's changed tools that wait for approval, by name."""
    specs = (tool.spec for key, tool in state.tools.items() if key[0] == tenant and tool.waits)
    return tuple(sorted(specs, key=lambda spec: spec.tool))


def version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key: `1.10.0` is newer than `1.9.0`, and a number is newer than a word (`1.0.0` than
    `1.0.rc1`)."""
    return tuple(
        (1, int(part), "") if part.isascii() and part.isdigit() else (0, 0, part) for part in version.split(".")
    )


def catalogue_hash(specs: Iterable[ToolSpec]) -> str:
    """sha256 over the specifications, whatever their order: equal catalogues have equal hashes in every
    process."""
    each = sorted(sha256_hex(canonical_json(msgspec.to_builtins(spec))) for spec in specs)
    return sha256_hex("".join(each).encode())
