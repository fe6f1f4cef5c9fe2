"""Concurrency keys as pseudo-runs: who may go on, who waits, and what follows from both. Pure.

A run asks by an input and hears by an input. It counts from the decision that grants it until the decision that frees
it: when it has told that it ended, when somebody has seen that it has, or when its grant expires, which is after its
deadline. Nothing else is needed to survive any death, because asking again is asking once and an answer derives from
state.
"""

from collections.abc import Iterator, Mapping
from typing import Final, assert_never

import msgspec

from headrace.contracts import pseudo

EVENTS_MAX: Final = 1_000
"""In one decision; what is left over comes in the next."""


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run in the queue."""

    max: int
    on_excess: str
    expires_ms: int


class Key(msgspec.Struct, omit_defaults=True):
    """One concurrency key."""

    run: str
    tenant: str
    pipeline: str
    version: int = 0
    decision_id: str = ""
    decision_seq: int = 0
    max: int = 1
    """As the newest run that was taken in says."""
    holders: dict[str, int] = {}
    """Run → instant at which its grant expires, in the order of their grants."""
    queue: dict[str, Waiting] = {}
    """First come, first served."""
    revoked: dict[str, None] = {}
    """Holders that are to be cancelled."""
    asked: dict[str, Waiting] = {}
    released: dict[str, str] = {}
    """Run → reason. Both: what no decision has dealt with yet."""
    late: int = 0
    """Messages that changed nothing."""

    @property
    def is_idle(self) -> bool:
        """Nobody holds it, waits for it, or wants it."""
        return not (self.holders or self.queue or self.asked)


# --- fold --------------------------------------------------------------------------------------


def evolve(key: Key, seq: int, message: pseudo.KeyMessage) -> bool:
    """Fold one message, stored at `seq`. False when it changed nothing."""
    match message:
        case pseudo.KeyDecided(data=data):
            key.decision_seq = seq  # one that does not count stands in the scope all the same
            if data.version != key.version + 1 and not (data.fresh and key.version == 0):
                key.late += 1
                return False
            key.version, key.decision_id = data.version, message.id
            for event in data.events:
                apply(key, event)
            return True
        case pseudo.KeyAsked(data=ask):
            if ask.run in key.holders or ask.run in key.queue or ask.run in key.asked:
                key.late += 1
                return False
            key.asked[ask.run] = Waiting(ask.max, ask.on_excess, ask.expires_ms)
            return True
        case pseudo.KeyReleased(data=data):
            if data.run not in key.holders and data.run not in key.queue and data.run not in key.asked:
                key.late += 1
                return False
            key.released[data.run] = data.reason
            return True
        case _:
            assert_never(message)


def apply(key: Key, event: pseudo.KeyEvent) -> None:
    """Fold one event of an accepted decision, or one that `decide` is about to say."""
    match event:
        case pseudo.KeyQueued():
            key.asked.pop(event.run, None)
            key.queue[event.run], key.max = Waiting(event.max, event.on_excess, event.expires_ms), event.max
        case pseudo.KeyGranted():
            key.asked.pop(event.run, None)
            key.queue.pop(event.run, None)
            key.holders[event.run], key.max = event.expires_ms, event.max
        case pseudo.KeyRefused():
            key.asked.pop(event.run, None)
            key.released.pop(event.run, None)
        case pseudo.KeyRevoked():
            key.revoked[event.run] = None
        case pseudo.KeyFreed():
            for where in (key.asked, key.queue, key.holders, key.revoked, key.released):
                where.pop(event.run, None)
        case _:
            assert_never(event)


def draft_of(key: Key) -> Key:
    """A key to try events on: changing it leaves `key` as it is."""
    return msgspec.structs.replace(
        key,
        holders=key.holders.copy(),
        queue=key.queue.copy(),
        revoked=key.revoked.copy(),
        asked=key.asked.copy(),
        released=key.released.copy(),
    )


# --- decide ------------------------------------------------------------------------------------


def decide(key: Key, ended: Mapping[str, str], *, now_ms: int) -> pseudo.KeyDecision | None:
    """The next decision, or None when there is nothing to say.

    Args:
        ended: Run → reason, for runs whose end was seen and which have not told it themselves.
    """
    draft, events = draft_of(key), list[pseudo.KeyEvent]()
    for event in _events(draft, ended, now_ms):
        apply(draft, event)
        events.append(event)
        if len(events) >= EVENTS_MAX:
            break
    if not events:
        return None
    fresh = not key.holders and not key.queue
    return pseudo.KeyDecision(version=key.version + 1, at_ms=now_ms, events=tuple(events), fresh=fresh)


def _events(draft: Key, ended: Mapping[str, str], now_ms: int) -> Iterator[pseudo.KeyEvent]:
    """Each event is folded into the draft before the next is asked for."""
    yield from _free(draft, ended, now_ms)
    yield from _grant(draft)  # those who wait come before those who ask
    while draft.asked:
        run, ask = next(iter(draft.asked.items()))
        if not draft.queue and len(draft.holders) < ask.max:
            yield pseudo.KeyGranted(run=run, max=ask.max, expires_ms=ask.expires_ms)
        elif ask.on_excess == "reject":
            yield pseudo.KeyRefused(run=run)
        else:
            yield pseudo.KeyQueued(run=run, max=ask.max, on_excess=ask.on_excess, expires_ms=ask.expires_ms)
            if ask.on_excess == "cancel_oldest":
                yield from _revoke(draft)


def _free(draft: Key, ended: Mapping[str, str], now_ms: int) -> Iterator[pseudo.KeyEvent]:
    for run, reason in list(draft.released.items()):
        yield pseudo.KeyFreed(run=run, reason=reason)
    for run, expires_ms in [*draft.holders.items(), *((run, one.expires_ms) for run, one in draft.queue.items())]:
        if run in ended:
            yield pseudo.KeyFreed(run=run, reason=ended[run])
        elif expires_ms <= now_ms:
            yield pseudo.KeyFreed(run=run, reason="expired")


def _grant(draft: Key) -> Iterator[pseudo.KeyEvent]:
    for run, first in list(draft.queue.items()):
        if run in draft.revoked:
            continue  # it is being cancelled, and must not begin
        if len(draft.holders) >= first.max:
            return
        yield pseudo.KeyGranted(run=run, max=first.max, expires_ms=first.expires_ms)


def _revoke(draft: Key) -> Iterator[pseudo.KeyEvent]:
    """As many of the oldest are to be cancelled as are too many."""
    living = [run for run in (*draft.holders, *draft.queue) if run not in draft.revoked]
    for run in living[: max(0, len(living) - draft.max)]:
        yield pseudo.KeyRevoked(run=run)


def next_due_ms(key: Key) -> int | None:
    """When time alone makes a decision possible."""
    return min((*key.holders.values(), *(one.expires_ms for one in key.queue.values())), default=None)
