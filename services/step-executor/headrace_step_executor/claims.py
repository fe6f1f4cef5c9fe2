"""At most once: a call is claimed in the log before it is made, and only whoever holds the claim makes it."""

from typing import Final

from headrace.contracts import codec
from headrace.contracts.errors import (
    AppendConflictError,
    MalformedMessageError,
    NewerSchemaError,
    UnavailableError,
    UnknownOutcomeError,
)
from headrace.contracts.events import AttemptStarted, Claimed
from headrace.runtime.clock import Clock
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.eventlog import EventLog, Expected, Stored
from headrace_step_executor import decide

LOOK_AGAIN_S: Final = 0.25
"""Between two looks while the broker cannot say whether the claim is stored. The attempt's deadline ends
them."""


async def claim(eventlog: EventLog, received: decide.Received, *, executor: str, token: str, clock: Clock) -> bool:
    """True when this process holds the call; False when somebody else does: then report nothing and let go.

    Args:
        token: Drawn for this claim alone. It, not the executor's name, tells our claim from any other.

    Waits until it is known; the caller's deadline bounds that.
    """
    order = received.order
    data = Claimed(decision=order.decision, offer=order.offer, token=token, executor=executor)
    outgoing = decide.claimed(received, data, source=source_of(executor), now_ms=clock.now_ms())
    expected = Expected(order.claim_seq, outgoing.subject)
    while True:
        try:
            await eventlog.append(outgoing.subject, outgoing.body, msg_id=outgoing.id, expected=expected)
        except AppendConflictError:
            # Also what a claim of ours answers that was stored without an acknowledgement: the token decides.
            found = await _last(eventlog, received.stream, outgoing.subject)
            if found is not None:
                return _token_of(found) == token and _reached()
        except (UnknownOutcomeError, UnavailableError):
            found = await _last(eventlog, received.stream, outgoing.subject)
            if found is not None and found.seq > order.claim_seq:
                return _token_of(found) == token and _reached()
        else:
            return _reached()
        await clock.sleep(LOOK_AGAIN_S)


def source_of(instance: str) -> str:
    """The `source` of what this process writes."""
    return f"headrace/{decide.SERVICE}/{instance}"


def _reached() -> bool:
    crashpoint("claim_stored_before_call")
    return True


async def _last(eventlog: EventLog, stream: str, subject: str) -> Stored | None:
    try:
        return await eventlog.last(stream, subject)
    except UnavailableError:
        return None


def _token_of(stored: Stored) -> str:
    """The token of a claim; empty for a message that is none, which cannot be ours."""
    try:
        message = codec.decode(stored.body)
    except (MalformedMessageError, NewerSchemaError):
        return ""
    return message.data.token if isinstance(message, AttemptStarted) else ""
