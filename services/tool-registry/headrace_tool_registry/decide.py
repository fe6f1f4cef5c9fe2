"""What follows from asking to register or disable a tool. Pure: the instant and the origin are arguments."""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from headrace.contracts import names, subjects
from headrace.contracts.canonical import canonical_json
from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.errors import ConflictError, DataError, NotFoundError
from headrace.contracts.events import ToolDisabled, ToolName, ToolRegistered, ToolSpec
from headrace.contracts.ids import event_id
from headrace.pipeline import json_schemas
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace_tool_registry.state import Catalogue

TOOL_RE: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}(\.[a-z][a-z0-9_-]{0,31}){0,3}")
VERSION_RE: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,31}")
EFFECTS: Final = ("pure", "idempotent", "at_most_once")
RISKS: Final = ("read", "write", "outbound", "exec")
OWN_NAMESPACES: Final = tuple(sorted({f"{name.partition('.')[0]}." for name in BUILTIN_TOOLS}))
"""What is called so is built in: a worker must not stand in for `fs.read`, newer or not."""
SPEC_BYTES_MAX: Final = 256 * 1024
"""A larger schema is a mistake; every model call that may use the tool would carry it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a new event comes from and which place it takes: `seq` is the last sequence of the tool's
    subject."""

    tenant: str
    source: str
    time: str
    seq: int
    causationid: str = ""


def register(state: Catalogue, spec: ToolSpec, *, origin: Origin) -> ToolRegistered | None:
    """The event that registers the tool, or None when exactly this is registered and enabled.

    Raises:
        DataError: the specification is not one; every reason is named. ConflictError: this version exists
        with another specification, or was disabled. A version never changes its meaning: register a new
        one.
    """
    _check(spec)
    known = state.tools.get((origin.tenant, spec.tool, spec.version))
    if known is not None:
        if canonical_json(msgspec.to_builtins(known.spec)) != canonical_json(msgspec.to_builtins(spec)):
            msg = f"{spec.tool} {spec.version} is registered with another specification; give it a new version"
            raise ConflictError(msg)
        if not known.enabled:
            msg = f"{spec.tool} {spec.version} was disabled; give it a new version"
            raise ConflictError(msg)
        return None
    tag = "io.headrace.tool.registered.v1"
    identity = event_id(
        tag, origin.tenant, spec.tool, spec.version, origin.seq, data=canonical_json(msgspec.to_builtins(spec))
    )
    return ToolRegistered(
        specversion=SPECVERSION,
        id=identity,
        source=origin.source,
        time=origin.time,
        schemaver=1,
        tenant=origin.tenant,
        subject=f"tool/{spec.tool}",
        causationid=origin.causationid,
        data=spec,
    )


def disable(state: Catalogue, name: ToolName, *, origin: Origin) -> ToolDisabled | None:
    """The event that disables a version, or None when it is disabled.

    Raises:
        NotFoundError: there is no such version.
    """
    known = state.tools.get((origin.tenant, name.tool, name.version))
    if known is None:
        msg = f"no tool {name.tool!r} in version {name.version!r}"
        raise NotFoundError(msg)
    if not known.enabled:
        return None
    return ToolDisabled(
        specversion=SPECVERSION,
        id=event_id("io.headrace.tool.disabled.v1", origin.tenant, name.tool, name.version, origin.seq),
        source=origin.source,
        time=origin.time,
        schemaver=1,
        tenant=origin.tenant,
        subject=f"tool/{name.tool}",
        causationid=origin.causationid,
        data=name,
    )


def _check(spec: ToolSpec) -> None:
    """Raise DataError with everything that is wrong."""
    problems = [
        text
        for wrong, text in (
            (not TOOL_RE.fullmatch(spec.tool), f"tool {spec.tool[:80]!r} is no name; it must match {TOOL_RE.pattern}"),
            (not VERSION_RE.fullmatch(spec.version), f"version {spec.version[:80]!r} must match {VERSION_RE.pattern}"),
            (spec.effect not in EFFECTS, f"effect {spec.effect[:80]!r} is none of {', '.join(EFFECTS)}"),
            (spec.risk not in RISKS, f"risk {spec.risk[:80]!r} is none of {', '.join(RISKS)}"),
            (
                spec.endpoint != subjects.BUILTIN and spec.tool.startswith(OWN_NAMESPACES),
                f"tool {spec.tool[:80]!r}: {', '.join(OWN_NAMESPACES)} are for built-in tools; take another name",
            ),
            (
                not names.DURATION_MS_MIN <= spec.timeout_ms <= names.DURATION_MS_MAX,
                f"timeout_ms {spec.timeout_ms} is outside {names.DURATION_MS_MIN} to {names.DURATION_MS_MAX}",
            ),
            (
                not 1 <= spec.result_bytes_max <= names.VALUE_BYTES_MAX,
                f"result_bytes_max {spec.result_bytes_max} is outside 1 to {names.VALUE_BYTES_MAX}",
            ),
            (
                spec.endpoint != subjects.BUILTIN and not subjects.RESPONDER_RE.fullmatch(spec.endpoint),
                f"endpoint {spec.endpoint[:80]!r} is neither {subjects.BUILTIN!r} nor nats:<subject> outside hr.>",
            ),
        )
        if wrong
    ]
    size = len(msgspec.json.encode(spec))
    if size > SPEC_BYTES_MAX:
        problems.append(f"the specification has {size} bytes, at most {SPEC_BYTES_MAX} are allowed")
    for field, schema in (("args", spec.args), ("result", spec.result)):
        problems.extend(_schema_problems(field, schema))
    if problems:
        raise DataError("; ".join(problems))


def _schema_problems(field: str, schema: dict[str, object]) -> list[str]:
    """As an executor will read it, so that what is registered can be called. Fetches nothing."""
    try:
        json_schemas.validator(schema)
    except DataError as error:
        return [f"{field} is no JSON Schema: {error}"]
    return []
