"""Bytes ↔ messages: nothing is lost, and whatever is not a message says why."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import RUN, TRACEPARENT, decided, example_messages, message, run_created, scheduled
from tests.contracts.strategies import JSON, of

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.codec import decode, decode_as, decode_command, encode, encode_value, inline, plain
from headrace.contracts.errors import HeadraceError, MalformedMessageError, NewerSchemaError
from headrace.contracts.live import Beat
from headrace.contracts.schemas import inner_types, live_types, stored_types, type_of
from headrace.runtime.values import OutOfRangeError, encode_checked

STORED = [kind for kind in stored_types() if kind not in cmd.VERBS.values()]


def refused(body: bytes) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        decode(body)
    return caught.value


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STORED, ids=type_of)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_stored_message_survives_the_wire(kind: type, data: st.DataObject) -> None:
    """decode(encode(m)) == m, and saying it again gives the same bytes."""
    made = data.draw(of(kind))
    body = encode(made)
    assert decode(body) == made
    assert encode(decode(body)) == body


@pytest.mark.parametrize("kind", [*inner_types(), *live_types(), *cmd.VERBS.values()], ids=type_of)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_events_commands_and_live_messages_survive_the_wire(kind: type, data: st.DataObject) -> None:
    """The same for what travels inside a decision, on core NATS, and as a command."""
    made = data.draw(of(kind))
    assert msgspec.json.decode(encode(made), type=kind) == made


@settings(max_examples=100, deadline=None)
@given(value=JSON)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    """A float stays a float: 1.0 does not become 1."""
    raw = inline(value).json
    assert isinstance(raw, msgspec.Raw)
    assert repr(plain(raw)) == repr(msgspec.json.decode(encode_value(value)))
    assert plain(raw) == value


def test_a_reader_skips_what_it_does_not_know() -> None:
    """Fields that a later release added, in the envelope, the body and an inner event, change nothing."""
    body = json.loads(encode(decided(2, scheduled("a"))))
    known = decode(json.dumps(body).encode())
    body["later"], body["data"]["later"], body["data"]["events"][0]["later"] = 1, [2], {"three": 3}
    assert decode(json.dumps(body).encode()) == known


def test_traceparent_and_tracestate_are_carried() -> None:
    """Trace context is in the body and comes back as it was."""
    made = message(ev.CancelRequested, ev.Reason(reason="x"), tracestate="vendor=1")
    again = decode(encode(made))
    assert (again.traceparent, again.tracestate) == (TRACEPARENT, "vendor=1")


# --- what is no message --------------------------------------------------------------------------

GOOD = encode(decided(1, run_created()))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"{}",
        b'{"type":7}',
        b'{"type":"com.example.thing"}',
        GOOD[:-1],
        GOOD + b"x",
        GOOD.replace(b'"version":1', b'"version":"one"'),
        GOOD.replace(b'"version":1', b'"version":1e400'),
        GOOD.replace(b'"tenant":"default"', b'"tenant":null'),
        GOOD.replace(b'"specversion":"1.0",', b""),
        GOOD.replace(b'"default"', b'"\\ud800"'),
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ],
    ids=lambda body: repr(body[:40]),
)
def test_garbage_is_malformed(body: bytes) -> None:
    """Exactly MalformedMessageError, which parks the bytes; never a bare error of the decoder."""
    assert type(refused(body)) is MalformedMessageError


@pytest.mark.parametrize(
    "body",
    [
        GOOD.replace(b"run.decided.v1", b"run.decided.v2"),
        GOOD.replace(b"run.decided.v1", b"run.imagined.v1"),
        GOOD.replace(b"run.created.v1", b"run.created.v2"),
        GOOD.replace(b"run.created.v1", b"run.imagined.v1"),
    ],
    ids=["newer message", "unknown message", "newer event inside", "unknown event inside"],
)
def test_otp_n2_a_message_from_the_future_says_so(body: bytes) -> None:
    """A well-formed message of a type or version that this release does not know is NewerSchemaError."""
    error = refused(body)
    assert type(error) is NewerSchemaError
    assert error.code == "upgrade_required"
    assert "io.headrace.run." in str(error)


def test_a_live_message_of_another_kind_is_malformed() -> None:
    """A required field is missing, the wrong type, no JSON: all the same error, naming what was expected."""
    for body in (b"{}", b"[]", b"\xff", b'{"service":1}'):
        with pytest.raises(MalformedMessageError, match="not a Beat"):
            decode_as(Beat, body)


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=80) | JSON.map(encode_value))
def test_no_bytes_escape_the_tree_of_errors(body: bytes) -> None:
    """Whatever arrives is a message or one of two errors."""
    with pytest.raises((MalformedMessageError, NewerSchemaError)):
        decode(body)


# --- commands, three ways ------------------------------------------------------------------------

START = {"pipeline": "review-repo", "inputs": {"repo": "."}, "runid": "nightly-7"}


def start(body: bytes, headers: dict[str, str] | None = None, **over: Any) -> Any:
    fields: dict[str, Any] = {"verb": "run-start", "tenant": "default", "fallback_id": "HR_COMMANDS-42"} | over
    fallback_id = fields.pop("fallback_id")
    return decode_command(fields["verb"], fields["tenant"], body, headers or {}, fallback_id=fallback_id)


def test_a_structured_cloudevent_is_a_command() -> None:
    """Everything the sender said is kept, attributes of others are skipped."""
    event = {
        "specversion": "1.0",
        "id": "evt-1",
        "source": "/ci",
        "type": "io.headrace.run.start.v1",
        "time": "2026-11-25T06:00:00Z",
        "datacontenttype": "application/json",
        "traceparent": TRACEPARENT,
        "data": START,
    }
    made = start(json.dumps(event).encode())
    assert isinstance(made, cmd.RunStart)
    assert (made.id, made.source, made.tenant, made.traceparent) == ("evt-1", "/ci", "default", TRACEPARENT)
    assert made.data == cmd.StartRun(pipeline="review-repo", inputs={"repo": "."}, runid="nightly-7")


def test_a_binary_cloudevent_is_a_command() -> None:
    """Attributes come from `ce-` headers, in any case of letters; numbers are read from their text."""
    headers = {
        "CE-Id": "evt-1",
        "ce-source": "/ci",
        "ce-specversion": "1.0",
        "ce-type": "io.headrace.run.start.v1",
        "ce-schemaver": "1",
        "Content-Type": "application/json",
        "traceparent": TRACEPARENT,
    }
    made = start(json.dumps(START).encode(), headers)
    assert (made.id, made.source, made.schemaver, made.traceparent) == ("evt-1", "/ci", 1, TRACEPARENT)
    assert made.data.runid == "nightly-7"


def test_plain_json_is_a_command() -> None:
    """Its identity is the message id, else the place where it lies; trace context comes from headers."""
    body = json.dumps(START).encode()
    assert start(body).id == "HR_COMMANDS-42"
    made = start(body, {"Nats-Msg-Id": "mine", "Traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    assert (made.id, made.traceparent, made.tracestate) == ("mine", TRACEPARENT, "vendor=1")


def test_the_body_of_an_event_wins_over_headers() -> None:
    """Trace context inside a structured event is the sender's own."""
    event = {"specversion": "1.0", "id": "e", "traceparent": "00-body", "data": START}
    assert start(json.dumps(event).encode(), {"traceparent": "00-header"}).traceparent == "00-body"


@pytest.mark.parametrize(
    ("body", "over", "why"),
    [
        (b"\xff", {}, "not JSON"),
        (b"[]", {}, "a command is a JSON object"),
        (b"{}", {}, "pipeline"),
        (b'{"pipeline":"p","inputz":{}}', {}, "inputz"),
        (b'{"pipeline":7}', {}, "Expected `str`"),
        (
            b'{"pipeline":"p"}',
            {"verb": "run-explode"},
            "known are budget-raise, definition-put, definition-retire, run-",
        ),
        (b'{"specversion":"1.0","data":{"pipeline":"p"},"tenant":"acme"}', {}, "tenant 'acme'"),
        (b'{"specversion":"1.0","data":{"pipeline":"p"},"type":"io.headrace.run.cancel.v1"}', {}, "run.cancel"),
        (b'{"specversion":"0.3","data":{"pipeline":"p"}}', {}, "specversion '0.3'"),
        (b'{"specversion":"1.0","data":{"pipeline":"p"},"id":7}', {}, "`id`"),
        (b'{"specversion":"1.0","data":[]}', {}, "object"),
        (b'{"pipeline":"p","runid":"' + b"x" * names.COMMAND_BYTES_MAX + b'"}', {}, "a command has at most"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, {}, "not JSON"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_malformed_command_says_what_is_wrong(body: bytes, over: dict[str, Any], why: str) -> None:
    """Exactly MalformedMessageError, with the reason."""
    with pytest.raises(MalformedMessageError) as caught:
        start(body, **over)
    assert type(caught.value) is MalformedMessageError
    assert why in str(caught.value)


@pytest.mark.parametrize("headers", [{"ce-id": "x" * 129}, {"ce-tenant": "acme"}, {"ce-schemaver": "new"}])
def test_malformed_headers_are_a_malformed_command(headers: dict[str, str]) -> None:
    """Binary mode is checked like the rest."""
    with pytest.raises(MalformedMessageError):
        start(json.dumps(START).encode(), headers)


@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=60) | JSON.map(encode_value), headers=st.dictionaries(st.text(max_size=8), st.text()))
def test_no_command_escapes_the_tree_of_errors(body: bytes, headers: dict[str, str]) -> None:
    """Whatever arrives on a command subject is a command or malformed."""
    try:
        made = start(body, headers)
    except MalformedMessageError:
        return
    assert isinstance(made, cmd.RunStart)


def test_commands_of_the_builders_are_what_their_verb_expects() -> None:
    """The verbs and the commands belong together."""
    for verb, kind in cmd.VERBS.items():
        made = example_messages()[type_of(kind)]
        assert decode_command(verb, "default", encode(made), {}, fallback_id="x") == made
        assert not isinstance(made, ev.StoredMessage)
    assert RUN


# --- numbers that JSON does not have -------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_msgspec_writes_nan_as_null_and_values_are_checked_before(value: float) -> None:
    """The codec would lose it silently; `runtime/values.py` is where every value is made, and refuses it."""
    assert encode_value({"a": value}) == b'{"a":null}'
    with pytest.raises(OutOfRangeError):
        encode_checked({"a": value})
