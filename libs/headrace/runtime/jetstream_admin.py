"""Streams and durables: make them, or say how they differ from what they must be."""

from collections.abc import Mapping
from typing import Any, Final

from headrace.contracts.errors import ConfigError, ConsumerGoneError, NotFoundError, TerminalError
from headrace.runtime.eventlog import ConsumerSpec, StreamSpec
from headrace.runtime.jetstream_link import Link
from headrace.runtime.jetstream_wire import NS_PER_S

MAX_WAITING: Final = 2048
"""Requests that may wait at a durable: about five from each share of a queue, for 400 shares."""


def stream_config(spec: StreamSpec) -> dict[str, Any]:
    """What is asked of the server. Purging stays allowed: finished runs are purged by the admin identity."""
    return {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "retention": spec.retention,
        "storage": "file",
        "discard": "new" if spec.discard_new or spec.discard_new_per_subject else "old",
        "discard_new_per_subject": spec.discard_new_per_subject,
        "max_age": int(spec.max_age_s * NS_PER_S),
        "max_bytes": spec.max_bytes,
        "max_msgs_per_subject": spec.max_msgs_per_subject,
        "max_msgs": -1,
        "max_consumers": -1,
        "deny_delete": spec.deny_delete,
        "deny_purge": False,
        "allow_rollup_hdrs": False,
        "allow_direct": True,
        "allow_msg_schedules": False,
        "no_ack": False,
        "compression": "s2" if spec.compression else "none",
        "duplicate_window": int(spec.duplicate_window_s * NS_PER_S),
        "num_replicas": spec.replicas,
        "persist_mode": "",
    }


def consumer_config(spec: ConsumerSpec) -> dict[str, Any]:
    """What is asked of the server. Deliveries are unlimited, because counts decide nothing."""
    config: dict[str, Any] = {
        "durable_name": spec.durable,
        "name": spec.durable,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "replay_policy": "instant",
        "ack_wait": int(spec.ack_wait_s * NS_PER_S),
        "max_deliver": -1,
        "max_ack_pending": spec.max_ack_pending,
        "max_waiting": MAX_WAITING,
    }
    if len(spec.filters) == 1:
        config["filter_subject"] = spec.filters[0]
    elif spec.filters:
        config["filter_subjects"] = list(spec.filters)
    return config


async def ensure_stream(link: Link, spec: StreamSpec) -> None:
    """See eventlog.Admin."""
    wanted = stream_config(spec)
    found = await _stream(link, spec.name)
    if found is None:
        request = {key: value for key, value in wanted.items() if value != ""}
        try:
            found = (await link.api(f"STREAM.CREATE.{spec.name}", request))["config"]
        except TerminalError:
            found = await _stream(link, spec.name)  # another process made it between the look and the creation
            if found is None:
                raise
    _compare(f"stream {spec.name}", wanted, found)


async def ensure_consumer(link: Link, spec: ConsumerSpec) -> None:
    """See eventlog.Admin."""
    wanted = consumer_config(spec)
    found = await _consumer(link, spec)
    if found is None:
        request = {"stream_name": spec.stream, "config": wanted, "action": "create"}
        try:
            answer = await link.api(f"CONSUMER.CREATE.{spec.stream}.{spec.durable}", request)
            found = answer["config"]
        except NotFoundError:
            raise
        except TerminalError:
            found = await _consumer(link, spec)  # another process made it between the look and the creation
            if found is None:
                raise
    _compare(f"consumer {spec.durable} of {spec.stream}", wanted, found)


async def difference(link: Link, spec: StreamSpec | ConsumerSpec) -> str:
    """How the server differs from a specification; empty when it does not. Changes nothing."""
    if isinstance(spec, StreamSpec):
        what, wanted, found = f"stream {spec.name}", stream_config(spec), await _stream(link, spec.name)
    else:
        what, wanted = f"consumer {spec.durable} of {spec.stream}", consumer_config(spec)
        found = await _consumer(link, spec)
    if found is None:
        return f"{what} is missing; `headrace admin migrate` makes it"
    try:
        _compare(what, wanted, found)
    except ConfigError as error:
        return str(error)
    return ""


async def delete_consumer(link: Link, stream: str, durable: str) -> None:
    """See eventlog.Admin."""
    try:
        await link.api(f"CONSUMER.DELETE.{stream}.{durable}")
    except ConsumerGoneError:
        return


async def _stream(link: Link, name: str) -> dict[str, Any] | None:
    try:
        config: dict[str, Any] = (await link.api(f"STREAM.INFO.{name}"))["config"]
    except NotFoundError:
        return None
    return config


async def _consumer(link: Link, spec: ConsumerSpec) -> dict[str, Any] | None:
    try:
        config: dict[str, Any] = (await link.api(f"CONSUMER.INFO.{spec.stream}.{spec.durable}"))["config"]
    except ConsumerGoneError:
        return None
    return config


_UNSET: Final[Mapping[str, Any]] = {
    "filter_subject": "", "filter_subjects": [], "persist_mode": "", "compression": "none", "max_age": 0,
    "discard_new_per_subject": False, "deny_delete": False, "deny_purge": False, "allow_rollup_hdrs": False,
    "allow_direct": False, "allow_msg_schedules": False, "no_ack": False,
}  # fmt: skip
"""The server leaves these out of its answer when they have this value."""
_FILTERS: Final = ("filter_subject", "filter_subjects")
_SETS: Final = frozenset({"subjects", "filter_subjects"})


def _compare(what: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    lines = []
    for key in sorted({*wanted, *(_FILTERS if "durable_name" in wanted else ())}):
        must, has = (config.get(key, _UNSET.get(key)) for config in (wanted, found))
        if key in _SETS:
            must, has = sorted(must or ()), sorted(has or ())
        if key == "persist_mode" and has == "default":
            has = ""
        if has != must:
            lines.append(f"  {key}: the server has {has!r}, it must be {must!r}")
    if lines:
        text = "\n".join(lines)
        msg = (
            f"{what} exists with another configuration:\n{text}\n"
            "Change it on the server, or remove it if nothing in it is needed, then run `headrace admin migrate`."
        )
        raise ConfigError(msg)
