"""What a run is started with: defaults, and whether it fits."""

import difflib
import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.contracts.codec import encode_value
from headrace.contracts.failure import Failure
from headrace.pipeline import json_schemas
from headrace.pipeline.plan import Plan


def with_defaults(plan: Plan, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs with the declared defaults for those not given, in the order of the file. Nothing is checked."""
    properties: Mapping[str, Any] = plan.inputs_schema["properties"]
    made = {
        name: inputs[name] if name in inputs else schema["default"]
        for name, schema in properties.items()
        if name in inputs or "default" in schema
    }
    return made | {name: value for name, value in inputs.items() if name not in made}


def check_inputs(plan: Plan, inputs: Mapping[str, Any]) -> list[Failure]:
    """Everything wrong with inputs, defaults already applied; empty when they fit."""
    properties = plan.inputs_schema["properties"]
    failures = []
    for name in inputs:
        if name not in properties:
            near = difflib.get_close_matches(name, properties, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            failures.append(_failure(f"no input `{name}`{hint}"))
    failures += [
        _failure(f"the input `{name}` is required") for name in plan.inputs_schema["required"] if name not in inputs
    ]
    known = {name: value for name, value in inputs.items() if name in properties}
    for path, message in json_schemas.errors(_validator(encode_value(properties)), known):
        failures.append(_failure(f"the input `{'.'.join(str(step) for step in path)}`: {message}"))
    return failures


def _failure(message: str) -> Failure:
    return Failure(code="inputs_invalid", message=message)


@functools.lru_cache(maxsize=256)  # as many as the scheduler keeps plans
def _validator(properties: bytes) -> Any:
    return json_schemas.validator({"type": "object", "properties": msgspec.json.decode(properties)})
