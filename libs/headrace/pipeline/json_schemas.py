"""JSON Schema checks, offline: a `$ref` to anywhere else is refused, patterns run in linear time."""

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from headrace.contracts.errors import DataError

ERRORS_MAX = 20


class SchemaRefusedError(DataError):
    """Not a JSON Schema that can be used here."""

    code = "schema_invalid"


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
        raise SchemaRefusedError(str(getattr(error, "message", error)).split("\n")[0][:300]) from error


def errors(checker: Any, value: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """What does not fit: path and message, at most 20."""
    found = []
    for error in checker.iter_errors(value):
        found.append((tuple(error.instance_path), error.message[:300]))
        if len(found) >= ERRORS_MAX:
            break
    return found
