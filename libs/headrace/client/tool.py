"""`@tool` makes a typed Python function a tool that pipelines can call; `headrace worker FILE` serves those of a file.

```python
from headrace.client.tool import tool

@tool(version="1")
def shout(text: str, times: int = 1) -> str:
    "The text in capitals."
    return " ".join([text.upper()] * times)
```
Annotations become the JSON Schema that arguments are checked against, before the call and at the call. A function may
be `async`; a plain one runs in a thread. It fails by raising: `AttemptError` with a code of its own and whether trying
again may help, anything else is `tool_crashed`. A parameter annotated `CallInfo` is filled in by the worker.
"""

import asyncio
import inspect
import typing
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, overload

import msgspec

from headrace.contracts import ids, subjects
from headrace.contracts.errors import AttemptError as AttemptError
from headrace.contracts.errors import DataError
from headrace.contracts.events import ToolSpec

TOOL_TIMEOUT_S: Final = 60.0
RESULT_BYTES_MAX: Final = 1_000_000
"""What one message of the bus can carry, its envelope included."""
_KINDS: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(slots=True, frozen=True)
class CallInfo:
    """What a worker knows of the call. A retry has another `id` and the same `key`: send that on as the key for
    idempotency."""

    id: str
    key: str
    tenant: str
    timeout_s: float
    """After so long nobody waits for the result any more."""


class Tool:
    """A function and its specification; calling it calls the function."""

    def __init__(self, function: Callable[..., Any], spec: ToolSpec, args: type[msgspec.Struct], info: str) -> None:
        self.function, self.spec = function, spec
        self._args, self._info = args, info

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the function."""
        return self.function(*args, **kwargs)

    async def call(self, given: bytes, info: CallInfo, threads: Executor) -> Any:
        """The function's result, its arguments read from JSON. A plain function runs in one of the threads.

        Raises:
            DataError: the arguments do not fit. Whatever the function raises.
        """
        arguments = self.arguments(given, info)
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**arguments)
        # A thread cannot be stopped: after its deadline it goes on, and holds one of the threads until it returns.
        return await asyncio.get_running_loop().run_in_executor(threads, lambda: self.function(**arguments))

    def arguments(self, given: bytes, info: CallInfo) -> dict[str, Any]:
        """The function's keyword arguments, of the types that it declares.

        Raises:
            DataError: they do not fit; the text has the place.
        """
        try:
            decoded = msgspec.json.decode(given, type=self._args)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            msg = f"{self.spec.tool}: {error}"
            raise DataError(msg) from error
        found = {name: getattr(decoded, name) for name in decoded.__struct_fields__}
        return found | {self._info: info} if self._info else found


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str = "",
    version: str = "1",
    effect: str = "idempotent",
    risk: str = "read",
    timeout_s: float = TOOL_TIMEOUT_S,
    result_bytes_max: int = RESULT_BYTES_MAX,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    version: str = "1",
    effect: str = "idempotent",
    risk: str = "read",
    timeout_s: float = TOOL_TIMEOUT_S,
    result_bytes_max: int = RESULT_BYTES_MAX,
) -> Any:
    """A `Tool`, or the decorator that makes one.

    Args:
        name: How pipelines call it; `<module>.<function>` unless given.
        version: Another schema, effect or meaning needs another one: a version never changes.
        effect: `pure`, `idempotent` or `at_most_once`: what a second call would do.
        risk: `read`, `write`, `outbound` or `exec`.
        timeout_s: Of one call.
        result_bytes_max: A larger result fails the call as `too_large`. At most 1 MB, which the bus can carry.

    Raises:
        DataError: a parameter without an annotation, or of a type that has no JSON Schema.
    """

    def declare(given: Callable[..., Any]) -> Tool:
        args, schema, info = _arguments_of(given)
        spec = ToolSpec(
            tool=name or f"{_module_name(given)}.{given.__name__}",
            version=version,
            description=inspect.getdoc(given) or given.__name__,
            args=schema,
            result=_result_of(given),
            effect=effect,
            risk=risk,
            timeout_ms=round(timeout_s * 1000),
            result_bytes_max=min(result_bytes_max, RESULT_BYTES_MAX),
        )
        return Tool(given, spec, args, info)

    return declare if function is None else declare(function)


def endpoint_of(spec: ToolSpec, tenant: str) -> str:
    """Where every worker of this version answers."""
    return f"{subjects.RESPONDER}tools.{tenant}.{ids.token(spec.tool)}.{ids.token(spec.version)}"


def _module_name(function: Callable[..., Any]) -> str:
    module = function.__module__
    if module == "__main__":  # the file itself is run
        module = Path(inspect.getfile(function)).stem
    return module.rpartition(".")[2].lower()


def _arguments_of(function: Callable[..., Any]) -> tuple[type[msgspec.Struct], dict[str, Any], str]:
    """A struct of the parameters, its JSON Schema, and the name of the parameter that is `CallInfo`."""
    hints = _hints_of(function)
    fields: list[Any] = []
    info = ""
    for parameter in inspect.signature(function).parameters.values():
        kind = hints.get(parameter.name)
        if parameter.kind not in _KINDS or kind is None:
            msg = f"{function.__qualname__}: `{parameter}` needs a name and an annotation to become an argument"
            raise DataError(msg)
        if kind is CallInfo:
            info = parameter.name
        elif parameter.default is parameter.empty:
            fields.append((parameter.name, kind))
        else:
            fields.append((parameter.name, kind, parameter.default))
    try:
        args = msgspec.defstruct("Arguments", fields, frozen=True, kw_only=True, forbid_unknown_fields=True)
        _, parts = msgspec.json.schema_components([args], ref_template="#/$defs/{name}")
    except (TypeError, ValueError) as error:
        msg = f"{function.__qualname__}: the parameters have no JSON Schema: {error}"
        raise DataError(msg) from error
    schema = {key: value for key, value in parts.pop("Arguments").items() if key != "title"}
    return args, schema | ({"$defs": parts} if parts else {}), info


def _result_of(function: Callable[..., Any]) -> dict[str, Any]:
    kind = _hints_of(function).get("return", Any)
    if kind is Any:
        return {}
    try:
        return msgspec.json.schema(kind)
    except TypeError as error:
        msg = f"{function.__qualname__}: the result has no JSON Schema: {error}"
        raise DataError(msg) from error


def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        msg = f"{function.__qualname__}: {error}"
        raise DataError(msg) from error
