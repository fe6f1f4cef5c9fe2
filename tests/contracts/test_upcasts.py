"""Old messages read as new ones: the mechanism, with a table of its own, because nothing has been released yet."""

import json
from typing import Any

import pytest
from tests.builders import decided, message, scheduled

from headrace.contracts import codec, upcasts
from headrace.contracts import events as ev
from headrace.contracts.codec import decode, encode
from headrace.contracts.errors import MalformedMessageError, NewerSchemaError
from headrace.contracts.upcasts import UPCASTS, upcast

TYPE = "io.headrace.cancel.requested"


def zero_to_half(raw: dict[str, Any]) -> dict[str, Any]:
    """`why` was a list of words."""
    return {**raw, "type": f"{TYPE}.v0b", "data": {"because": " ".join(raw["data"]["why"])}}


def half_to_one(raw: dict[str, Any]) -> dict[str, Any]:
    """`because` became `reason`."""
    return {**raw, "type": f"{TYPE}.v1", "schemaver": 1, "data": {"reason": raw["data"]["because"]}}


def inner(raw: dict[str, Any]) -> dict[str, Any]:
    """An event inside a decision whose `step` became `path`."""
    return {key: value for key, value in raw.items() if key != "step"} | {
        "type": "io.headrace.step.skipped.v1",
        "path": raw["step"],
    }


TABLE = {f"{TYPE}.v0a": zero_to_half, f"{TYPE}.v0b": half_to_one, "io.headrace.step.omitted.v1": inner}


@pytest.fixture
def retired(monkeypatch: pytest.MonkeyPatch) -> None:
    """The codec as it would be with these types retired."""
    monkeypatch.setattr(codec, "_RETIRED", tuple(tag.encode() for tag in TABLE))
    monkeypatch.setattr(codec, "upcast", lambda raw: upcasts.upcast(raw, TABLE))


def old(kind: str, data: Any) -> bytes:
    body = json.loads(encode(message(ev.CancelRequested, ev.Reason(reason="x"))))
    return json.dumps(body | {"type": kind, "schemaver": 0, "data": data}).encode()


def test_nothing_is_retired_yet() -> None:
    """The first entry belongs with the first tagged release, and with an example of what it retires."""
    assert dict(UPCASTS) == {}


def test_upcasts_are_chained() -> None:
    """Two steps old is read as new in one decode."""
    raw = json.loads(old(f"{TYPE}.v0a", {"why": ["no", "need"]}))
    assert upcast(raw, TABLE)["data"] == {"reason": "no need"}
    assert raw["type"] == f"{TYPE}.v0a"  # the old one is untouched


def test_an_untouched_message_comes_back_equal() -> None:
    """A table without its type changes nothing, inside or out."""
    raw = json.loads(encode(decided(1, scheduled("a"))))
    assert upcast(raw, TABLE) == raw


def test_events_inside_a_decision_are_upcast(retired: None) -> None:
    """The fold only ever sees the newest form."""
    body = json.loads(encode(decided(2, scheduled("a"))))
    body["data"]["events"].append({"type": "io.headrace.step.omitted.v1", "step": "b", "reason": "x"})
    made = decode(json.dumps(body).encode())
    assert isinstance(made, ev.RunDecided)
    assert made.data.events == (scheduled("a"), ev.StepSkipped(path="b", reason="x"))


def test_a_retired_message_is_decoded_as_its_successor(retired: None) -> None:
    """Both old versions give what the new one says."""
    expected = ev.Reason(reason="no need")
    for body in (old(f"{TYPE}.v0a", {"why": ["no", "need"]}), old(f"{TYPE}.v0b", {"because": "no need"})):
        made = decode(body)
        assert isinstance(made, ev.CancelRequested) and made.data == expected


def test_a_tag_that_is_only_quoted_takes_the_slow_road_and_means_the_same(retired: None) -> None:
    """Text that looks like a retired tag is text."""
    made = message(ev.CancelRequested, ev.Reason(reason=f"not {TYPE}.v0a"))
    assert decode(encode(made)) == made


def test_errors_on_the_slow_road_are_the_same(retired: None) -> None:
    """Garbage is malformed, the future is from the future."""
    with pytest.raises(MalformedMessageError):
        decode(f"{TYPE}.v0a".encode())
    with pytest.raises(NewerSchemaError):
        decode(old(f"{TYPE}.v9", {"reason": f"unlike {TYPE}.v0a"}))
