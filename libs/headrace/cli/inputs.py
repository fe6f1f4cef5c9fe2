"""`-i name=value`: text where the input is declared as text, else YAML 1.2 (which JSON is a part of)."""

from collections.abc import Iterable, Mapping
from typing import Any

from headrace.cli.output import UsageError
from headrace.contracts.errors import DataError
from headrace.pipeline.inputs import check_inputs, with_defaults
from headrace.pipeline.loader import load_bytes
from headrace.pipeline.plan import Plan
from headrace.pipeline.problems import RefusedDefinitionError


class InputsError(DataError):
    """Inputs do not fit what the pipeline declares. Every reason is in the text."""

    code = "inputs_invalid"


def parse_inputs(pairs: Iterable[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    """The values given on the command line.

    Args:
        properties: The declared inputs, JSON Schemas by name; empty when the pipeline is known by name alone.

    Raises:
        UsageError: not `name=value`, or a name twice. InputsError: a value is no YAML.
    """
    given: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            msg = f"-i {pair[:80]}: expected name=value"
            raise UsageError(msg)
        if name in given:
            msg = f"-i {name}: given twice"
            raise UsageError(msg)
        schema = properties.get(name, {})
        is_text = isinstance(schema, dict) and schema.get("type") == "string"
        given[name] = text if is_text else _parsed(f"-i {name}", text)
    return given


def parse_payload(text: str | None, option: str = "--payload") -> Any:
    """What an option gives: YAML 1.2, null without one. Raises InputsError."""
    return None if text is None else _parsed(option, text)


def _parsed(name: str, text: str) -> Any:
    if not text.strip():
        return ""
    try:
        return load_bytes(text.encode("utf-8", "surrogateescape"), name).document
    except RefusedDefinitionError as error:
        problem = error.found[0]
        msg = f"{name}={text[:80]}: {problem.text}"
        raise InputsError(msg) from None


def complete_inputs(plan: Plan, given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs with defaults applied, as the run will have them.

    Raises:
        InputsError: they do not fit; nothing was started.
    """
    complete = with_defaults(plan, given)
    failures = check_inputs(plan, complete)
    if failures:
        raise InputsError("; ".join(failure.message for failure in failures))
    return complete
