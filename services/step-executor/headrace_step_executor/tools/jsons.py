"""`json.parse` and `json.validate`: values and schemas."""

from typing import Any, Final

from headrace.contracts.errors import DataError
from headrace.pipeline import json_schemas
from headrace_step_executor.tools.call import ToolCall, in_thread, refuse
from headrace_step_executor.tools.fs_read import json_value

ERRORS_SHOWN: Final = 50


async def parse(call: ToolCall) -> Any:
    """`json.parse`."""
    return await in_thread(call, lambda: {"value": json_value(call.args["text"], "json.parse")})


async def validate(call: ToolCall) -> Any:
    """`json.validate`."""
    return await in_thread(call, lambda: _validate(call.args["value"], call.args["schema"]))


def _validate(value: Any, schema: Any) -> dict[str, Any]:
    try:
        checker = json_schemas.validator(schema)
    except DataError as error:
        msg = "schema_invalid"
        raise refuse(msg, str(error)) from error
    errors = [
        {"path": pointer(path), "message": message}
        for path, message in json_schemas.errors(checker, value)[:ERRORS_SHOWN]
    ]
    return {"valid": not errors, "errors": errors}


def pointer(path: tuple[str | int, ...]) -> str:
    """A JSON pointer (RFC 6901); the whole value is the empty text."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
