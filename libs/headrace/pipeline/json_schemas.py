"""JSON Schema checks, offline: a `$ref` to anywhere else is refused, patterns run in linear time."""

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from headrace.contracts.errors import DataError

ERRORS_MAX = 20


class SchemaRefusedError(DataError):
    """Not a JSON Schema that can be used here. `pointer` (RFC 6901) leads to what is wrong; empty: the whole."""

    code = "schema_invalid"

    def __init__(self, message: str, *, pointer: str = "") -> None:
        self.pointer = pointer
        super().__init__(message)


def _no_fetch(uri: str) -> Any:
    message = f"`$ref` to {uri}: schemas are not fetched"
    raise ValueError(message)


def validator(schema: Mapping[str, Any] | bool) -> Any:
    """A compiled validator (JSON Schema 2020-12).

    Raises:
        SchemaRefusedError: an invalid schema, a reference to elsewhere, or a pattern that is not linear.
    """
    plain = dict(schema) if isinstance(schema, Mapping) else schema
    try:
        return jsonschema_rs.Draft202012Validator(
            plain,
            retriever=_no_fetch,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20),
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
        path = getattr(error, "instance_path", None) or _unresolved(plain)
        pointer = "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)
        raise SchemaRefusedError(str(getattr(error, "message", error)).split("\n")[0][:300], pointer=pointer) from error


def _unresolved(schema: Any) -> tuple[str | int, ...]:
    """Where the first `$ref` stands that leads out of the schema, or nowhere in it."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), schema)]
    while pending:
        path, part = pending.pop()
        if isinstance(part, Mapping):
            reference = part.get("$ref")
            if isinstance(reference, str) and not _leads_somewhere(schema, reference):
                return (*path, "$ref")
            pending += [((*path, key), inner) for key, inner in reversed(list(part.items()))]
        elif isinstance(part, list):
            pending += [((*path, place), inner) for place, inner in reversed(list(enumerate(part)))]
    return ()


def _leads_somewhere(schema: Any, reference: str) -> bool:
    if not reference.startswith("#/"):
        return reference.startswith("#")  # the whole, or an anchor
    part = schema
    for step in reference[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, Mapping) and name in part:
            part = part[name]
        elif isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        else:
            return False
    return True


def errors(checker: Any, value: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """What does not fit: path and message, at most 20."""
    found = []
    for error in checker.iter_errors(value):
        found.append((tuple(error.instance_path), error.message[:300]))
        if len(found) >= ERRORS_MAX:
            break
    return found
