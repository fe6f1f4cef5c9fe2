"""Setting a message aside: its bytes, why, and where it was, in HR_DEAD. Then the consumer goes on."""

import logging
import re
from typing import Final

from headrace.contracts import codec, subjects
from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.events import MessageParked, Parked
from headrace.contracts.failure import Failure
from headrace.contracts.ids import TENANT_RE, event_id
from headrace.contracts.names import TENANT_DEFAULT
from headrace.runtime.clock import rfc3339
from headrace.runtime.eventlog import Appended, EventLog, Stored

log = logging.getLogger("headrace.park")

TAG: Final = "io.headrace.message.parked.v1"
BODY_BYTES_MAX: Final = 600_000
"""Base64 makes it 800 kB, below the broker's default max_payload of 1 MiB. The whole size is a header."""
HEADER_CHARS_MAX: Final = 16_384
"""Of all headers together; enough for what the broker itself lets pass by default (4 KiB) and then some."""
STACK_CHARS_MAX: Final = 8_000
_STREAM_TOKEN: Final = re.compile(r"[^A-Za-z0-9_-]")


def parked(
    stored: Stored, failure: Failure, *, deliveries: int, source: str, now_ms: int, stack: str = ""
) -> MessageParked:
    """The message that keeps another one. Its id is stream and sequence: parking twice is parking once."""
    tenant = tenant_of(stored.subject)
    headers = _bounded(dict(stored.headers))
    if len(stored.body) > BODY_BYTES_MAX:
        headers["headrace-cut"] = str(len(stored.body))
    return MessageParked(
        specversion=SPECVERSION,
        id=event_id(TAG, tenant, stored.stream, stored.seq),
        source=source,
        time=rfc3339(now_ms),
        schemaver=1,
        tenant=tenant,
        subject=stored.subject.encode("utf-8", "replace").decode(),
        data=Parked(
            stream=stored.stream,
            subject=stored.subject.encode("utf-8", "replace").decode(),
            seq=stored.seq,
            body=stored.body[:BODY_BYTES_MAX],
            headers=headers,
            failure=failure,
            deliveries=deliveries,
            stack=stack[-STACK_CHARS_MAX:],
        ),
    )


async def park(
    eventlog: EventLog,
    stored: Stored,
    failure: Failure,
    *,
    deliveries: int,
    source: str,
    now_ms: int,
    stack: str = "",
) -> Appended:
    """Store the message in HR_DEAD. The caller ends the delivery afterwards, not before.

    Raises:
        UnavailableError, UnknownOutcomeError, StorageFullError: it may not be parked; hand the delivery back.
    """
    message = parked(stored, failure, deliveries=deliveries, source=source, now_ms=now_ms, stack=stack)
    done = await eventlog.append(
        subjects.dead(message.tenant, _STREAM_TOKEN.sub("-", stored.stream)),
        codec.encode(message),
        msg_id=message.id,
    )
    log.error(
        "message.parked",
        extra={
            "stream": stored.stream, "seq": stored.seq, "subject": stored.subject[:500],
            "failure": failure.code, "why": failure.message[:500], "deliveries": deliveries,
        },
    )  # fmt: skip
    return done


def tenant_of(subject: str) -> str:
    """The tenant that a subject names, or the default one where it names none that could be."""
    tokens = subject.split(".")
    if len(tokens) > 2 and tokens[0] == "hr" and TENANT_RE.fullmatch(tokens[2]):
        return tokens[2]
    return TENANT_DEFAULT


def _bounded(headers: dict[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    left = HEADER_CHARS_MAX
    for name, value in headers.items():
        left -= len(name) + len(value)
        if left < 0:
            kept["headrace-headers-cut"] = str(len(headers))
            break
        kept[name] = value.encode("utf-8", "replace").decode()
    return kept
