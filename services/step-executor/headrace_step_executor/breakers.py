"""Circuit breakers: pybreaker is the state machine, everything around it is ours.

Admission, probes, the clock and the rate rule live here, because pybreaker's own calls hold a lock over the whole call,
let every caller through when half open, count a cancellation as a failure, replace the error of the call that trips it,
go by the wall clock and know no failure rate. The call runs outside of it; what came of it is reported afterwards,
synchronously. A report that comes late, from before the last change of state, changes nothing.
"""

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

import pybreaker

FAILURES_MAX: Final = 5
"""In a row; then it opens."""
HINTED_FAILURES_MAX: Final = 2
"""The same while another replica says that its breaker of this name is open."""
RATE_WINDOW_S: Final = 60.0
RATE_CALLS_MIN: Final = 20
RATE_FAILED: Final = 0.5
"""Of at least so many calls within the window; then it opens too, however many succeed in between."""
OUTCOMES_MAX: Final = 10_000
"""Remembered of the window: beyond 166 calls a second the window is shorter."""
OPEN_S: Final = 30.0
OPEN_MAX_S: Final = 300.0
"""It stays open 30 s, twice as long with every probe that fails, five minutes at most; ± 20 % so that replicas don't
probe together."""
SPREAD: Final = 0.2
PROBES_MAX: Final = 1
SUCCESSES_TO_CLOSE: Final = 2
PROBE_WAIT_S: Final = 5.0
"""Until whoever is refused because a probe is under way may ask again."""
RAMP_S: Final = 60.0
RAMP_FACTOR: Final = 1.25
RAMP_PER_S_MIN: Final = 5.0
"""For a minute after it has closed it lets through a quarter more than before the trouble, so that what has piled up
does not bring the provider down again; five calls a second harm nobody."""
RAMP_WAIT_S: Final = 10.0
"""Who is refused meanwhile comes again within so long."""
T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Change:
    """A transition. `state`: open, half-open, closed. `cause` is what opened it."""

    state: str
    cause: str
    open_s: float
    """For how long it is open from now on."""
    trips: int


class OpenError(Exception):
    """The call is not made. It may be, after `after_s`."""

    def __init__(self, name: str, after_s: float, cause: str) -> None:
        self.name, self.after_s, self.cause = name, after_s, cause
        super().__init__(f"breaker {name} is open: {cause}")


class _Failed(Exception):  # only ever said to pybreaker
    """Stands for the error of a call, which itself goes to the caller."""


class _Storage(pybreaker.CircuitBreakerStorage):
    """Counters and state in memory. What pybreaker takes for the instant of opening is the wall clock's, so it is
    not kept."""

    def __init__(self) -> None:
        super().__init__("memory")
        self._state, self._failures, self._successes = pybreaker.STATE_CLOSED, 0, 0

    @property
    def state(self) -> str:
        """See pybreaker."""
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        self._state = state

    def increment_counter(self) -> None:
        """See pybreaker."""
        self._failures += 1

    def reset_counter(self) -> None:
        """See pybreaker."""
        self._failures = 0

    def increment_success_counter(self) -> None:
        """See pybreaker."""
        self._successes += 1

    def reset_success_counter(self) -> None:
        """See pybreaker."""
        self._successes = 0

    @property
    def counter(self) -> int:
        """See pybreaker."""
        return self._failures

    @property
    def success_counter(self) -> int:
        """See pybreaker."""
        return self._successes

    @property
    def opened_at(self) -> datetime | None:
        """Unused: admission goes by the clock that is given."""
        return None

    @opened_at.setter
    def opened_at(self, _instant: datetime) -> None:
        pass


@dataclass(slots=True, frozen=True)
class Permit:
    """A call may be made; what came of it is reported with it."""

    epoch: int
    probe: bool


class AsyncBreaker:
    """One breaker. All methods but `call` return at once.

    Args:
        now_s: The process's own clock.
        jitter: Draws from [0, 1).
        changed: Hears of transitions.
    """

    def __init__(
        self,
        name: str,
        *,
        now_s: Callable[[], float],
        jitter: Callable[[], float],
        changed: Callable[[Change], None] | None = None,
    ) -> None:
        self.name = name
        self._now_s, self._jitter, self._changed = now_s, jitter, changed
        self._storage = _Storage()
        self._machine = pybreaker.CircuitBreaker(
            fail_max=FAILURES_MAX,
            success_threshold=SUCCESSES_TO_CLOSE,
            state_storage=self._storage,
            throw_new_error_on_trip=False,
            name=name,
        )
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=OUTCOMES_MAX)
        self._failed = 0
        self._epoch, self._probes, self._trips = 0, 0, 0
        self._due_s, self._hinted_until_s = 0.0, 0.0
        self._steady_per_s = 0.0
        self._ramp_until_s, self._ramp_room, self._ramp_at_s = 0.0, 0.0, 0.0
        self.cause = ""

    @property
    def state(self) -> str:
        """open, half-open or closed. An open one stays so until somebody asks after its time."""
        return self._storage.state

    @property
    def due_in_s(self) -> float:
        """Seconds until the next probe may be made; 0 unless open."""
        return max(0.0, self._due_s - self._now_s()) if self.state == pybreaker.STATE_OPEN else 0.0

    async def call(self, work: Callable[[], Awaitable[T]], *, counts: Callable[[Exception], bool]) -> T:
        """What `work` gives. Its own error always surfaces; a cancellation is no outcome at all.

        Args:
            counts: Whether an error says something about the health of what is called.

        Raises:
            OpenError: the call is not made.
        """
        permit = self.admit()
        try:
            result = await work()
        except Exception as error:
            if counts(error):
                self.failed(permit, f"{getattr(error, 'attempt_code', type(error).__name__)}: {error}")
            else:
                self.succeeded(permit)  # it answered, if only with a no
            raise
        except BaseException:
            self.forgotten(permit)
            raise
        self.succeeded(permit)
        return result

    def admit(self) -> Permit:
        """Permission for one call.

        Raises:
            OpenError: open and not due, or half open with its probe under way.
        """
        if self.state == pybreaker.STATE_CLOSED:
            if self._ramp_until_s:
                self._climb()
            return Permit(self._epoch, False)
        if self.state == pybreaker.STATE_OPEN:
            left_s = self._due_s - self._now_s()
            if left_s > 0:
                raise OpenError(self.name, left_s, self.cause)
            self._machine.half_open()
            self._turn()
        if self._probes >= PROBES_MAX:
            raise OpenError(self.name, PROBE_WAIT_S, self.cause)
        self._probes += 1
        return Permit(self._epoch, True)

    def succeeded(self, permit: Permit) -> None:
        """The call was answered."""
        if not self._counts(permit):
            return
        self._note(failed=False)
        self._machine.call(_nothing)
        if self.state == pybreaker.STATE_CLOSED and permit.probe:
            self._trips, self.cause = 0, ""
            self._forget_outcomes()
            self._ramp_at_s = self._now_s()
            self._ramp_until_s, self._ramp_room = self._ramp_at_s + RAMP_S, 0.0
            self._turn()

    def failed(self, permit: Permit, cause: str) -> None:
        """The call failed in a way that counts."""
        if not self._counts(permit):
            return
        self._note(failed=True)
        hinted = self._now_s() < self._hinted_until_s
        self._machine.fail_max = HINTED_FAILURES_MAX if hinted else FAILURES_MAX
        with contextlib.suppress(_Failed):  # said to the machine, and to nobody else
            self._machine.call(_raise)
        if self.state == pybreaker.STATE_CLOSED and self._is_rate_exceeded():
            self._machine.open()
        if self.state == pybreaker.STATE_OPEN:
            self._trip(cause[:300])

    def forgotten(self, permit: Permit) -> None:
        """Nobody will know what came of the call: the probe's place is free again, nothing else changes."""
        if permit.epoch == self._epoch and permit.probe:
            self._probes -= 1

    def hint(self, seconds: float) -> None:
        """Another replica says that it is open there: for so long less is enough here."""
        self._hinted_until_s = self._now_s() + seconds

    @property
    def hinted(self) -> bool:
        """A hint is fresh."""
        return self._now_s() < self._hinted_until_s

    def restore(self, *, open_s: float, cause: str, trips: int) -> None:
        """Begin open, as a process did that knew more. Says nothing to others."""
        self._machine.open()
        self._trips, self.cause = trips, cause
        self._due_s = self._now_s() + min(open_s, OPEN_MAX_S)
        self._epoch += 1

    def _climb(self) -> None:
        """Take one of the calls that may be made while it recovers.

        Raises:
            OpenError: there is none left for now.
        """
        now_s, rate = self._now_s(), max(RAMP_PER_S_MIN, RAMP_FACTOR * self._steady_per_s)
        if now_s >= self._ramp_until_s:
            self._ramp_until_s = 0.0
            return
        self._ramp_room = min(rate, self._ramp_room + rate * (now_s - self._ramp_at_s))
        self._ramp_at_s = now_s
        if self._ramp_room < 1:
            raise OpenError(self.name, 1 / rate + RAMP_WAIT_S * self._jitter(), "it has closed and recovers")
        self._ramp_room -= 1

    def _counts(self, permit: Permit) -> bool:
        if permit.epoch != self._epoch:
            return False
        if permit.probe:
            self._probes -= 1
        return True

    def _trip(self, cause: str) -> None:
        if self._trips == 0:
            since_s = max(1.0, self._now_s() - self._outcomes[0][0])
            self._steady_per_s = (len(self._outcomes) - self._failed) / since_s
        self._trips, self.cause = self._trips + 1, cause
        self._ramp_until_s = 0.0
        open_s = min(OPEN_MAX_S, OPEN_S * 2 ** min(self._trips - 1, 10))
        self._due_s = self._now_s() + min(OPEN_MAX_S, open_s * (1 - SPREAD + 2 * SPREAD * self._jitter()))
        self._forget_outcomes()
        self._turn()

    def _turn(self) -> None:
        self._epoch += 1
        self._probes = 0
        if self._changed is not None:
            self._changed(Change(self.state, self.cause, self.due_in_s, self._trips))

    def _note(self, *, failed: bool) -> None:
        now_s, outcomes = self._now_s(), self._outcomes
        while outcomes and (outcomes[0][0] < now_s - RATE_WINDOW_S or len(outcomes) == OUTCOMES_MAX):
            self._failed -= outcomes.popleft()[1]
        outcomes.append((now_s, failed))
        self._failed += failed

    def _forget_outcomes(self) -> None:
        self._outcomes.clear()
        self._failed = 0

    def _is_rate_exceeded(self) -> bool:
        return len(self._outcomes) >= RATE_CALLS_MIN and self._failed >= RATE_FAILED * len(self._outcomes)


def _nothing() -> None:
    """A success, for pybreaker."""


def _raise() -> None:
    """A failure, for pybreaker."""
    raise _Failed
