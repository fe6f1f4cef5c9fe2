"""What `proto/` says, made from the message types and the table of channels. Pure: dictionaries, no files.

`proto/generate.py` writes them; a test compares what is written with what is made here.
"""

import inspect
import re
from typing import Any, Final, get_args

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import live
from headrace.contracts.channels import ANYONE, CHANNELS, Channel, spoken
from headrace.contracts.commands import VERBS
from headrace.contracts.envelope import SPECVERSION, Message
from headrace.contracts.pseudo import KeyEvent, TriggerEvent

ASYNCAPI: Final = "3.1.0"
NATS_BINDING: Final = "0.1.0"
"""It has a single field, `queue`."""
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_PARAMETERS: Final = {
    "tenant": "Token of the tenant, [A-Za-z0-9_-]{1,32}.",
    "pipeline": "Name of the pipeline, [a-z][a-z0-9_-]{0,62}.",
    "part": "Partition, two digits: fnv1a32(root run id) % 32.",
    "run": "Run id; a child carries its root's id before the first `_`.",
    "headline": "The most telling thing the decision holds, e.g. `run-completed` or `progressed`.",
    "queue": "llm, tool or transform, with `-ws` where the workspace is needed and a label where one is asked for.",
    "event": "attempt-succeeded, attempt-failed or attempt-deferred.",
    "call": "Hash of the step instance and the call.",
    "step": "Hash of the step instance.",
    "verb": "Last token; it decides what the body is.",
    "question": "Hash of the step instance that asks.",
    "command": "Id of the command, or a hash of it where it is no token.",
    "name": "Name that pipelines listen for.",
    "tool": "Token of the tool.",
    "session": "Token of the session.",
    "rule": "Name of the alert rule.",
    "breaker": "Provider, endpoint and model of the breaker, and a hash that tells it from others.",
    "stream": "The stream that the message came from.",
    "instance": "Name of a process.",
}


def stored_types() -> tuple[type[Message], ...]:
    """Every stored message type: those of services, then commands."""
    return (*get_args(ev.StoredMessage), *VERBS.values())


def inner_types() -> tuple[type[ev.Event], ...]:
    """Every event that a decision may hold."""
    return (*get_args(ev.DecisionEvent), *get_args(TriggerEvent), *get_args(KeyEvent))


def live_types() -> tuple[type, ...]:
    """Every type said on core NATS, which has no tag because the subject says what it is."""
    stored = stored_types()
    return tuple(kind for kind in spoken() if kind not in stored)


def type_of(kind: type) -> str:
    """The explicit type string of a message or event; for a live one the name of its schema file."""
    tag = kind.__struct_config__.tag  # type: ignore[attr-defined]  # every type here is a msgspec Struct
    return str(tag) if tag is not None else f"live-{kind.__name__}"


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas by type: stored messages, inner events, commands and live messages."""
    return {type_of(kind): schema_of(kind) for kind in (*stored_types(), *inner_types(), *live_types())}


def schema_of(kind: type) -> dict[str, Any]:
    """The JSON Schema of one type, complete in itself."""
    _, components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    own = _clean(components.pop(kind.__name__))
    if issubclass(kind, Message):
        own["properties"]["specversion"] = {"const": SPECVERSION}
        own["properties"]["id"] = {"type": "string", "minLength": 1}
    schema = {"$schema": DIALECT, "$id": f"{type_of(kind)}.json", **own}
    if components:
        schema["$defs"] = {name: _clean(components[name]) for name in sorted(components)}
    return schema


def _clean(schema: dict[str, Any]) -> dict[str, Any]:
    """A type that msgspec described, with its docstring as one would print it."""
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])
    return schema


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI document: every channel, who sends and who receives on it, and every message."""
    operations: dict[str, Any] = {}
    for channel in CHANNELS:
        operations |= _operations(channel)
    kinds = {type_of(kind): kind for kind in (*stored_types(), *live_types())}
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "Headrace",
            "version": "1",
            "description": "Every subject and message of Headrace. Generated from contracts/; see proto/README.md.",
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": operations,
        "components": {"messages": {name: _message(name, kind) for name, kind in kinds.items()}},
    }


def _channel(channel: Channel) -> dict[str, Any]:
    said = [*channel.messages, live.Reply] if channel.request else [*channel.messages]
    if channel.reply is not None and channel.request is None:
        said.append(channel.reply)
    made: dict[str, Any] = {
        "address": channel.address,
        "description": channel.about,
        "messages": {type_of(kind): {"$ref": f"#/components/messages/{type_of(kind)}"} for kind in said},
    }
    names = _PARAMETER.findall(channel.address)
    if names:
        made["parameters"] = {name: {"description": _PARAMETERS[name]} for name in names}
    made["x-headrace-stream"] = channel.stream or None
    made["x-headrace-writers"] = list(channel.writers)
    made["x-headrace-readers"] = list(channel.readers)
    if channel.request is not None and channel.reply is not None:
        made["x-headrace-request"] = {"$ref": _file(channel.request)}
        made["x-headrace-reply"] = {"$ref": _file(channel.reply)}
    return made


def _operations(channel: Channel) -> dict[str, Any]:
    """One operation for each service that sends and each that receives."""
    made: dict[str, Any] = {}
    for service in channel.writers:
        made[f"{service}-sends-{channel.name}"] = _operation(channel, service, "send")
    for service in channel.readers:
        operation = _operation(channel, service, "receive")
        if channel.queue and service != ANYONE:
            operation["bindings"] = {"nats": {"queue": channel.queue, "bindingVersion": NATS_BINDING}}
        made[f"{service}-receives-{channel.name}"] = operation
    return made


def _operation(channel: Channel, service: str, action: str) -> dict[str, Any]:
    place = f"#/channels/{channel.name}"
    made: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": place},
        "messages": [{"$ref": f"{place}/messages/{type_of(kind)}"} for kind in channel.messages],
        "tags": [{"name": service}],
    }
    if channel.reply is not None:
        answer = channel.reply if channel.request is None else live.Reply
        made["reply"] = {
            "channel": {"$ref": place},
            "messages": [{"$ref": f"{place}/messages/{type_of(answer)}"}],
        }
    return made


def _message(name: str, kind: type) -> dict[str, Any]:
    summary = (inspect.getdoc(kind) or "").partition("\n")[0]
    made = {"name": name, "summary": summary}
    if not issubclass(kind, Message):
        made["contentType"] = "application/json"
    schema_format = "application/schema+json;version=draft-2020-12"
    return {**made, "payload": {"schemaFormat": schema_format, "schema": {"$ref": _file(kind)}}}


def _file(kind: type) -> str:
    return f"schemas/{type_of(kind)}.json"
