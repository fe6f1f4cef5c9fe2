"""The pseudo-runs of one owned partition: fold, decide, append, with the same safety as runs.

The partition's tail hands their messages over in order. Own decisions are folded when the tail shows them; at most one
of a pseudo-run is in flight; each is checked against the sequence of the last. What follows from a decision is carried
out by `pseudo_effects.py`.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from headrace.contracts import codec, ids, names, pseudo, subjects
from headrace.contracts.errors import (
    AppendConflictError,
    CorruptError,
    HeadraceError,
    MalformedMessageError,
    NewerSchemaError,
    RetryableError,
    UnknownOutcomeError,
)
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.eventlog import Appended, Expected, Stored
from headrace.runtime.park import park
from headrace_scheduler import cron as crons
from headrace_scheduler import key as keys
from headrace_scheduler import messages, pseudo_messages
from headrace_scheduler.cron import Cron
from headrace_scheduler.damage import SkippedError
from headrace_scheduler.entries import Shared
from headrace_scheduler.key import Key
from headrace_scheduler.pseudo_effects import Effects, Entry

log = logging.getLogger("headrace.scheduler")

RETRY_MS: Final = 200
LOOK_S: Final = 0.02


class Pseudos:
    """Those of one partition."""

    def __init__(self, part: int, stream: str, shared: Shared) -> None:
        self._part, self._stream, self._shared = part, stream, shared
        self.entries: dict[str, Entry] = {}
        self._touched: dict[str, None] = {}
        self._revision = -1
        self._live = False
        self._effects = Effects(shared, self._touch)

    def _touch(self, run: str) -> None:
        if run in self.entries:
            self._touched[run] = None

    @property
    def schedules(self) -> list[Cron]:
        """For a snapshot."""
        return [entry.state for entry in self.entries.values() if isinstance(entry.state, Cron)]

    @property
    def keys(self) -> list[Key]:
        """For a snapshot."""
        return [entry.state for entry in self.entries.values() if isinstance(entry.state, Key)]

    @property
    def due_ms(self) -> int | None:
        """When time alone makes a decision possible; 0 when something is to be done at once."""
        if self._touched or self._revision != self._shared.schedules.revision:
            return 0
        return min((entry.due_ms for entry in self.entries.values() if entry.due_ms is not None), default=None)

    def restore(self, states: Sequence[Cron | Key]) -> None:
        """Take what a snapshot holds."""
        for state in states:
            self.entries[state.run] = Entry(state)
            self._touched[state.run] = None

    # --- fold --------------------------------------------------------------------------------------

    async def fold(self, stored: Stored) -> bool:
        """Fold one message; False when it is of no pseudo-run. What cannot be read is parked.

        Raises:
            SkippedError: the leader has what was not read.
        """
        if not any(mark in stored.subject for mark in ids.PSEUDO_MARKS):  # nearly always
            return False
        subject = subjects.parse_run_subject(stored.subject)
        if subject is None or not ids.PSEUDO_RE.fullmatch(subject.run):
            return False
        unfit = await self._fold(stored, subject)
        if unfit is not None:
            await park(
                self._shared.broker,
                stored,
                unfit.failure(),
                deliveries=1,
                source=self._shared.source,
                now_ms=self._shared.clock.now_ms(),
            )
        return True

    async def _fold(self, stored: Stored, subject: subjects.RunSubject) -> HeadraceError | None:
        try:
            message = codec.decode(stored.body)
        except (MalformedMessageError, NewerSchemaError) as error:
            if subject.kind == "decision" and (damaged := self.entries.get(subject.run)) is not None:
                damaged.state.decision_seq = stored.seq
                _stall(damaged, error)
            return error if isinstance(error, MalformedMessageError) else None
        if not isinstance(message, pseudo.PseudoMessage) or message.runid != subject.run:
            return MalformedMessageError("the message does not belong on this subject")
        entry = self.entries.get(subject.run)
        if entry is None:
            entry = self.entries[subject.run] = _unknown(message, stored.seq)
        if isinstance(message, pseudo.TriggerDecided | pseudo.KeyDecided):
            if _is_gap(entry, message) and entry.stalled is None:
                await self._check(entry, message.data.version)
            entry.in_flight = ""  # ours, or another's: then ours will be refused
        if isinstance(message, pseudo.ScheduleMessage) and isinstance(entry.state, Cron):
            crons.evolve(entry.state, stored.seq, message)
            entry.ended = {due: end for due, end in entry.ended.items() if due in entry.state.starting}
        elif isinstance(message, pseudo.KeyMessage) and isinstance(entry.state, Key):
            counts = keys.evolve(entry.state, stored.seq, message)
            if self._live:  # what was said before is made good when we begin to decide
                entry.take_answers(entry.state, message, counts=counts)
        else:
            return MalformedMessageError("the message is about a pseudo-run of another kind")
        self._touched[subject.run] = None
        return None

    async def _check(self, entry: Entry, version: int) -> None:
        """Decisions are missing before this one: in the log, or in our reading of it?"""
        state, found = entry.state, 0
        async for stored in self._shared.broker.read(self._stream, (_scope(state),)):
            try:
                message = codec.decode(stored.body)
            except MalformedMessageError:
                break
            if not isinstance(message, pseudo.TriggerDecided | pseudo.KeyDecided):
                break
            if message.data.version == found + 1:
                found += 1
        if found >= version:
            why = f"{self._stream} has decisions of {state.run} that were not read"
            raise SkippedError(why)
        why = f"decision {found + 1} of {state.run} is missing; compare the stream with its archive"
        _stall(entry, CorruptError(why))

    # --- decide ------------------------------------------------------------------------------------

    async def turn(self) -> None:
        """Decide about whatever was touched or is due, and carry out what follows."""
        if not self._live:
            self._live = True
            for entry in self.entries.values():
                entry.answer_holders()
        self._look_at_definitions()
        now_ms = self._shared.clock.now_ms()
        for run, entry in self.entries.items():
            if entry.due_ms is not None and entry.due_ms <= now_ms:
                self._touched[run] = None
        while self._touched:
            run = next(iter(self._touched))
            del self._touched[run]
            try:
                await self._follow(self.entries[run])
            except (RetryableError, UnknownOutcomeError):
                self._touched[run] = None
                raise

    def _look_at_definitions(self) -> None:
        revision = self._shared.schedules.revision
        if revision == self._revision:
            return
        self._revision = revision
        for run, cron in self._shared.schedules.of_part(self._part).items():
            self.entries.setdefault(run, Entry(cron))
        self._touched.update(dict.fromkeys(self.entries))

    async def _follow(self, entry: Entry) -> None:
        if entry.in_flight or entry.stalled is not None:
            return
        now_ms = self._shared.clock.now_ms()
        if not self._shared.may_decide(self._part):
            entry.due_ms = now_ms + RETRY_MS
            return
        entry.due_ms = None
        if isinstance(entry.state, Cron):
            outgoing = self._decide_cron(entry, entry.state, now_ms)
        else:
            outgoing = await self._decide_key(entry, entry.state, now_ms)
        if outgoing is None:
            return
        expected = Expected(entry.state.decision_seq, _scope(entry.state))
        entry.in_flight = outgoing.id
        crashpoint("before_decision")
        try:
            future = await self._shared.broker.publish(
                outgoing.subject, outgoing.body, msg_id=outgoing.id, expected=expected
            )
        except RetryableError:
            self._let_go(entry, outgoing.id)
            raise
        future.add_done_callback(lambda done: self._sent(entry, outgoing.id, done))

    def _decide_cron(self, entry: Entry, cron: Cron, now_ms: int) -> messages.Outgoing | None:
        self._effects.start_runs(entry, cron)
        decision = crons.decide(cron, self._shared.schedules.wanted(cron), entry.ended, now_ms=now_ms)
        if decision is None:
            entry.due_ms = crons.next_due_ms(cron)
            return None
        return pseudo_messages.trigger_decided(cron, decision, source=self._shared.source)

    async def _decide_key(self, entry: Entry, key: Key, now_ms: int) -> messages.Outgoing | None:
        await self._effects.tell_runs(entry, key)
        decision = keys.decide(key, entry.gone, now_ms=now_ms)
        if decision is None:
            entry.due_ms = keys.next_due_ms(key)
            if key.holders or key.queue:
                again_ms = now_ms + self._effects.look_for_ended(entry, key)
                entry.due_ms = again_ms if entry.due_ms is None else min(again_ms, entry.due_ms)
            else:
                del self.entries[key.run]  # its memory is the log
            return None
        if not entry.is_known and not await self._recall(entry, key):
            entry.due_ms = now_ms + RETRY_MS
            return None
        decision = keys.decide(key, entry.gone, now_ms=now_ms)
        assert decision is not None, key.run
        return pseudo_messages.key_decided(key, decision, source=self._shared.source)

    async def _recall(self, entry: Entry, key: Key) -> bool:
        """Take a key up again that was forgotten while nobody needed it; False while our reading lags behind.

        Nothing of it but the number of its last decision is needed: that one left it idle.
        """
        last = await self._shared.broker.last(self._stream, _scope(key))
        if last is not None and last.seq < entry.since_seq:
            decided = codec.decode(last.body)
            if not isinstance(decided, pseudo.KeyDecided):
                _stall(entry, CorruptError(f"{last.subject} holds a {type(decided).__name__}"))
                return False
            key.version, key.decision_id, key.decision_seq = decided.data.version, decided.id, last.seq
        elif last is not None and key.decision_seq < last.seq:
            return False  # another owner has decided: the tail will show it
        entry.is_known = True
        return True

    def _sent(self, entry: Entry, sent: str, done: "asyncio.Future[Appended]") -> None:
        if done.cancelled() or entry.in_flight != sent or done.exception() is None:
            return
        self._shared.supervisor.spawn(self._resolve(entry, sent, done.exception()), "scheduler.resolve")

    async def _resolve(self, entry: Entry, sent: str, error: BaseException | None) -> None:
        """A refused or unanswered decision: wait until the tail has shown all that the leader holds, then go on."""
        clock, state = self._shared.clock, entry.state
        if not isinstance(error, AppendConflictError | RetryableError | UnknownOutcomeError):
            log.error("decision.failed", extra={"run_id": state.run}, exc_info=error)
        deadline_s = clock.monotonic_s() + names.UNKNOWN_RESOLVE_S
        while entry.in_flight == sent and clock.monotonic_s() < deadline_s:
            try:
                last = await self._shared.broker.last(self._stream, _scope(state))
            except (RetryableError, UnknownOutcomeError):
                await clock.sleep(RETRY_MS / 1000)
                continue
            if last is None or last.seq <= state.decision_seq:
                break
            await clock.sleep(LOOK_S)
        self._let_go(entry, sent)

    def _let_go(self, entry: Entry, sent: str) -> None:
        if entry.in_flight == sent:
            entry.in_flight = ""
            entry.due_ms = self._shared.clock.now_ms() + RETRY_MS


def _unknown(message: pseudo.PseudoMessage, seq: int) -> Entry:
    """A pseudo-run that is met for the first time, or a key that was forgotten."""
    kind = Key if message.runid.endswith("_key") else Cron
    state = kind(run=message.runid, tenant=message.tenant, pipeline=message.pipeline)
    return Entry(state, is_known=kind is Cron, since_seq=seq)


def _is_gap(entry: Entry, message: pseudo.TriggerDecided | pseudo.KeyDecided) -> bool:
    """Decisions before this one were not read, and it matters: a key that was idle is taken up again at any number."""
    is_fresh = isinstance(message, pseudo.KeyDecided) and message.data.fresh and entry.state.version == 0
    return message.data.version > entry.state.version + 1 and not is_fresh


def _scope(state: Cron | Key) -> str:
    return subjects.decision_scope(subjects.run_prefix(state.tenant, state.pipeline, state.run))


def _stall(entry: Entry, error: HeadraceError) -> None:
    """Stop one pseudo-run, loudly: one that went on with a guess could fire twice, or let too many in."""
    entry.stalled = error
    log.error("pseudo.stalled", extra={"run_id": entry.state.run, "code": error.code, "why": str(error)})
