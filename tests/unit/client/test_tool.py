"""Functions become tools: schema from annotations, arguments of the declared types."""

from typing import Annotated, Any, Literal

import msgspec
import pytest

from headrace.client.tool import CallInfo, Tool, endpoint_of, tool
from headrace.contracts import subjects
from headrace.contracts.errors import DataError
from headrace.pipeline import json_schemas

INFO = CallInfo(id="r/a/2", key="r/a", tenant="t", timeout_s=1)


class Point(msgspec.Struct):
    """A place."""

    x: float
    y: float = 0.0


@tool(name="geo.far", version="1.2.0+b", effect="pure", risk="outbound", timeout_s=1.5)
def far(
    to: Point, call: CallInfo, unit: Literal["km", "mi"] = "km", limit: Annotated[int, msgspec.Meta(ge=1)] = 3
) -> list[float]:
    """How far it is.

    Not as the crow flies.
    """
    assert isinstance(to, Point)
    return [to.x, to.y, float(limit), float(call.key == "r/a"), float(unit == "km")]


def test_annotations_become_a_closed_schema_with_defaults() -> None:
    """What an executor checks is what the function declares, and the worker's own parameter is no argument."""
    spec = far.spec
    checker = json_schemas.validator(spec.args)

    assert (spec.tool, spec.version, spec.effect, spec.risk, spec.timeout_ms) == (
        "geo.far", "1.2.0+b", "pure", "outbound", 1500,
    )  # fmt: skip
    assert spec.description == "How far it is.\n\nNot as the crow flies."
    assert spec.args["required"] == ["to"]
    assert spec.args["properties"]["unit"]["default"] == "km"
    assert json_schemas.errors(checker, {"to": {"x": 1}, "limit": 2}) == []
    for wrong in ({}, {"to": {}}, {"to": {"x": 1}, "limit": 0}, {"to": {"x": 1}, "call": {}}, {"to": {"x": 1}, "u": 1}):
        assert json_schemas.errors(checker, wrong), wrong
    assert json_schemas.errors(json_schemas.validator(spec.result), [1.5]) == []


def test_a_call_gets_arguments_of_the_declared_types() -> None:
    """The function sees structs, not maps, and what the worker knows of the call."""
    arguments = far.arguments(b'{"to": {"x": 1}, "limit": 2}', INFO)

    assert far(**arguments) == [1.0, 0.0, 2.0, 1.0, 1.0]
    with pytest.raises(DataError, match=r"geo\.far: .*\$\.to"):
        far.arguments(b'{"to": 3}', INFO)
    with pytest.raises(DataError, match="unknown field"):
        far.arguments(b'{"to": {"x": 1}, "more": 2}', INFO)


def test_a_tool_is_called_after_its_module_and_function() -> None:
    """Unless it is given a name."""

    @tool
    def shout(text: str) -> str:
        return text.upper()

    assert isinstance(shout, Tool)
    assert (shout.spec.tool, shout.spec.description) == ("test_tool.shout", "shout")
    assert shout("a") == "A"


def test_every_endpoint_is_one_that_executors_may_publish_to() -> None:
    """One subject a version, so that two versions live side by side."""
    subject = endpoint_of(far.spec, "default")

    assert subjects.RESPONDER_RE.fullmatch(subject)
    assert subject != endpoint_of(msgspec.structs.replace(far.spec, version="1.2.0"), "default")


@pytest.mark.parametrize("kind", ["untyped", "many", "complex"])
def test_what_has_no_schema_is_refused_where_it_is_declared(kind: str) -> None:
    """Not at the first call."""

    def untyped(text) -> None: ...
    def many(*texts: str) -> None: ...
    def number(value: complex) -> None: ...

    given: Any = {"untyped": untyped, "many": many, "complex": number}[kind]
    with pytest.raises(DataError, match=r"annotation|no JSON Schema"):
        tool(given)
