"""What follows from asking to register or disable a tool. Pure: the instant and the origin are arguments."""

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from headrace.contracts import names, subjects
from headrace.contracts.canonical import canonical_json
from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.errors import ConflictError, DataError, NotFoundError
from headrace.contracts.events import ToolChanged, ToolDisabled, ToolName, ToolRegistered, ToolSpec
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
SERVERS: Final = "mcp."
"""Tools of servers that others run, and may change under our feet."""
DESCRIPTION_CHARS_MAX: Final = 16_384
"""Each call of a model that may use the tool carries it."""
UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\U000e0000-\U000e007f]"
)
"""Characters that a model reads and a person who approves does not see."""
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


def register(state: Catalogue, spec: ToolSpec, *, origin: Origin) -> ToolRegistered | ToolChanged | None:
    """The event that registers the tool, or None when exactly this is registered and enabled, or waits.

    A tool of somebody's server (`mcp.`) that is described otherwise than before is not registered but noted as changed:
    what was approved is not what is there any more.

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
        if known.enabled or known.waits:
            return None
        if not spec.tool.startswith(SERVERS):
            msg = f"{spec.tool} {spec.version} was disabled; give it a new version"
            raise ConflictError(msg)
        return ToolChanged(**_fields("io.headrace.tool.changed.v1", spec, origin))
    if spec.tool.startswith(SERVERS) and any(key[:2] == (origin.tenant, spec.tool) for key in state.tools):
        return ToolChanged(**_fields("io.headrace.tool.changed.v1", spec, origin))
    return ToolRegistered(**_fields("io.headrace.tool.registered.v1", spec, origin))


def approve(state: Catalogue, name: ToolName, *, origin: Origin) -> ToolRegistered | None:
    """The event that enables a version that waits for it, or None when it is enabled. Without a version: what waits.

    Raises:
        NotFoundError: nothing of that name waits. ConflictError: that version was disabled for good.
    """
    versions = [tool for key, tool in state.tools.items() if key[:2] == (origin.tenant, name.tool)]
    wanted = [tool for tool in versions if (tool.spec.version == name.version if name.version else tool.waits)]
    if not wanted:
        msg = f"nothing of the tool {name.tool[:80]!r} waits for approval"
        raise NotFoundError(msg)
    (tool,) = wanted
    if tool.enabled:
        return None
    if not tool.waits:
        msg = f"{name.tool} {tool.spec.version} was disabled; give it a new version"
        raise ConflictError(msg)
    return ToolRegistered(**_fields("io.headrace.tool.registered.v1", tool.spec, origin))


def _fields(tag: str, spec: ToolSpec, origin: Origin) -> dict[str, Any]:
    data = canonical_json(msgspec.to_builtins(spec))
    return {
        "specversion": SPECVERSION,
        "id": event_id(tag, origin.tenant, spec.tool, spec.version, origin.seq, data=data),
        "source": origin.source,
        "time": origin.time,
        "schemaver": 1,
        "tenant": origin.tenant,
        "subject": f"tool/{spec.tool}",
        "causationid": origin.causationid,
        "data": spec,
    }


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
            (
                len(spec.description) > DESCRIPTION_CHARS_MAX,
                f"a description of {len(spec.description)} characters; at most {DESCRIPTION_CHARS_MAX}",
            ),
            (
                bool(UNSEEN.search(spec.description)),
                "the description has control or invisible characters: whoever approves it would not see them",
            ),
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
    except json_schemas.SchemaRefusedError as error:
        return [f"{field} is no JSON Schema: {error.pointer or '/'}: {error}"]
    return []
