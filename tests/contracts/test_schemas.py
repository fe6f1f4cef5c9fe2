"""What is generated equals what is committed, and every type has an example that holds for ever."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from tests.builders import RUN, example_messages, examples
from tests.contracts.strategies import of
from tests.contracts.write_examples import EXAMPLES, recorded

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts import names, pseudo, subjects
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.channels import CHANNELS
from headrace.contracts.codec import decode, encode
from headrace.contracts.envelope import Message
from headrace.contracts.schemas import asyncapi, inner_types, live_types, schemas, stored_types, type_of
from headrace.runtime.streams import stream_specs

PROTO = EXAMPLES.parent
KINDS: dict[str, type] = {type_of(kind): kind for kind in (*stored_types(), *inner_types())}
EXAMPLE_FILES = sorted(EXAMPLES.glob("*/*.json"))
INNER = msgspec.json.Decoder(ev.DecisionEvent | pseudo.TriggerEvent | pseudo.KeyEvent)
COMMAND = msgspec.json.Decoder(cmd.Command)


def generate() -> Any:
    """`proto/generate.py`, which is a script and no package."""
    spec = importlib.util.spec_from_file_location("proto_generate", PROTO / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decode_example(kind: str, body: bytes) -> Any:
    """An example as its own reader decodes it."""
    if kind in {type_of(one) for one in inner_types()}:
        return INNER.decode(body)
    if kind in {type_of(one) for one in cmd.VERBS.values()}:
        return COMMAND.decode(body)
    return decode(body)


# --- generated files -----------------------------------------------------------------------------


def test_what_is_committed_is_what_the_contracts_say() -> None:
    """`python proto/generate.py --check` finds nothing."""
    module = generate()
    assert module.differences(module.wanted()) == []
    assert module.main(["--check"]) == 0


def test_a_difference_is_found_and_named(tmp_path: Path) -> None:
    """A changed, a missing and an extra file each get a line."""
    module = generate()
    module.HERE = tmp_path
    (tmp_path / "schemas").mkdir()
    (tmp_path / "asyncapi.json").write_text("{}")
    (tmp_path / "schemas" / "io.headrace.run.gone.v1.json").write_text("{}")
    found = module.differences(module.wanted())
    assert "asyncapi.json differs" in found
    assert "schemas/io.headrace.run.gone.v1.json is of no type" in found
    assert "schemas/io.headrace.run.decided.v1.json is missing" in found
    assert module.main(["--check"]) == 1
    assert module.main([]) == 0
    assert module.differences(module.wanted()) == []


def test_every_schema_is_a_schema() -> None:
    """Each is valid under its dialect and complete in itself."""
    for name, schema in schemas().items():
        jsonschema_rs.meta.validate(schema)
        refs = re.findall(r'"\$ref": "([^"]+)"', json.dumps(schema))
        assert all(ref.removeprefix("#/$defs/") in schema["$defs"] for ref in refs), name


def test_an_envelope_without_what_cloudevents_requires_is_no_message() -> None:
    """Required attributes of CloudEvents, and ours, are required by every schema of a stored message."""
    for kind in stored_types():
        required = schemas()[type_of(kind)]["required"]
        assert {"specversion", "id", "source", "type", "time", "tenant", "schemaver", "data"} <= set(required)


# --- examples ------------------------------------------------------------------------------------


def test_every_type_has_an_example() -> None:
    """A type without one cannot be told apart from one that nobody thought through."""
    missing = [kind for kind in KINDS if not list((EXAMPLES / kind).glob("*.json"))]
    assert missing == [], "run `python -m tests.contracts.write_examples`"


def test_every_example_is_of_a_known_type() -> None:
    """A retired type keeps its examples and has an upcast instead."""
    from headrace.contracts.upcasts import UPCASTS

    assert [path.parent.name for path in EXAMPLE_FILES if path.parent.name not in {*KINDS, *UPCASTS}] == []


def test_examples_are_append_only() -> None:
    """What was written once is what is there; a new example is written down as well."""
    found = {path.relative_to(EXAMPLES).as_posix(): sha256_hex(path.read_bytes()) for path in EXAMPLE_FILES}
    assert found == recorded()


@pytest.mark.parametrize("path", EXAMPLE_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example_decodes_encodes_and_fits_its_schema(path: Path) -> None:
    """Every version ever released decodes, and saying it again says the same."""
    kind, body = path.parent.name, path.read_bytes()
    made = decode_example(kind, body)
    assert isinstance(made, KINDS[kind])
    assert json.loads(encode(made)) == json.loads(body)
    jsonschema_rs.validator_for(json.loads((PROTO / "schemas" / f"{kind}.json").read_bytes())).validate(
        json.loads(body)
    )


def test_the_builders_examples_are_whole_and_of_their_type() -> None:
    """The examples that builders make are of the type that they stand under, and say all a run's message must."""
    for kind, made in examples().items():
        assert type_of(type(made)) == kind
    for made in example_messages().values():
        if isinstance(made, ev.RunMessage):
            assert made.runid == RUN and made.pipeline and made.correlationid and made.traceparent and made.defdigest


# --- the table of channels -----------------------------------------------------------------------

PREFIX = subjects.run_prefix("default", "review-repo", RUN)
BUILT = {
    "decisions": subjects.decision(PREFIX, "run-completed"),
    "decisions-with-order": subjects.decision(PREFIX, "scheduled.llm"),
    "orders": subjects.order(PREFIX, "llm"),
    "reports": subjects.report(PREFIX, "attempt-succeeded"),
    "claims": subjects.claim(PREFIX, "0f1e2d"),
    "inputs": subjects.input_(PREFIX, "cancel-requested"),
    "commands": subjects.command("default", "run-start"),
    "outcomes": subjects.outcome("default", "01KAX5R7Q0CMD"),
    "triggers": subjects.trigger("default", "repo-pushed"),
    "definitions": subjects.definition("default", "review-repo"),
    "tools": subjects.tool("default", "demo-echo-1a2b3c"),
    "sessions": subjects.session("default", "chat-7"),
    "alerts": subjects.alert("run-stalled"),
    "dead-letters": subjects.dead("default", "HR_COMMANDS"),
    "presence": subjects.presence("one"),
    "presence-please": subjects.PRESENCE_PLEASE,
    "revocations": subjects.REVOKE,
    "order-checks": subjects.order_current(7),
}


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.name)
def test_a_channel_is_where_the_code_publishes(channel: Any) -> None:
    """The address in the table is the template of what `subjects` builds, and its stream takes it."""
    subject = BUILT.get(channel.name, channel.address)
    template = re.sub(r"\\{\w+\\}", r"[^.]+", re.escape(channel.address))
    assert re.fullmatch(template, subject), subject
    takes = [spec.name for spec in stream_specs() if any(_matches(subject, pattern) for pattern in spec.subjects)]
    expected = [] if not channel.stream else [channel.stream if channel.stream != subjects.RUNS else "HR_RUNS_0"]
    assert takes == expected


def _matches(subject: str, pattern: str) -> bool:
    head, _, rest = pattern.partition(">")
    assert not rest
    return re.match(re.escape(head).replace(r"\*", "[^.]+"), subject) is not None


def test_every_stored_type_is_said_on_one_channel() -> None:
    """A decision has two: with and without its order inside."""
    for kind in stored_types():
        said = [channel.name for channel in CHANNELS if kind in channel.messages]
        assert len(said) == (2 if kind is ev.RunDecided else 1), (kind, said)


def test_orders_and_decisions_with_one_share_the_executors_filter() -> None:
    """One filter finds both forms of work for a queue."""
    for queue in names.QUEUES:
        (pattern,) = subjects.order_filters(queue)
        for subject in (subjects.order(PREFIX, queue), subjects.decision(PREFIX, f"scheduled.{queue}")):
            assert re.fullmatch(re.escape(pattern).replace(r"\*", "[^.]+"), subject)


def test_the_asyncapi_document_points_only_at_what_is_there() -> None:
    """Every reference inside resolves, every file that it names exists."""
    document = asyncapi()
    for ref in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        if not ref.startswith("#/"):
            assert (PROTO / ref).exists(), ref
            continue
        place: Any = document
        for token in ref.removeprefix("#/").split("/"):
            assert token in place, ref
            place = place[token]


def test_every_channel_has_a_sender_and_a_receiver_in_the_document() -> None:
    """Operations name both sides; every field of a subject is explained."""
    document = asyncapi()
    for name, channel in document["channels"].items():
        place = {"$ref": f"#/channels/{name}"}
        actions = {one["action"] for one in document["operations"].values() if one["channel"] == place}
        assert actions == {"send", "receive"}, name
        assert set(re.findall(r"\{(\w+)\}", channel["address"])) == set(channel.get("parameters", {}))


def test_every_type_can_be_generated() -> None:
    """The strategies of the round-trip tests know every kind of field; so does the schema of live messages."""
    for kind in (*stored_types(), *inner_types(), *live_types()):
        of(kind).validate()
        assert type_of(kind) in schemas()
    assert all(issubclass(kind, Message) for kind in stored_types())
