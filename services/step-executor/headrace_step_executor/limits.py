"""How much may be asked of a provider at a time: quotas of a credential, calls in flight.

Pure but for the clock that is given and the futures that wait. A quota is what the provider's headers last said,
counted down by what was asked since; where they say nothing there is none. A 429 pauses the credential.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from headrace_step_executor.providers.messages import Quota

if TYPE_CHECKING:
    from collections.abc import Iterator

SILENT_PAUSE_S: Final = 1.0
"""After a 429 that does not say until when."""
QUEUE_FACTOR: Final = 2
"""Calls that wait for a place, for each place; whoever comes later waits durably."""


class ExhaustedError(Exception):
    """The call is not made now. It may be, after `after_s`."""

    def __init__(self, reason: str, after_s: float, about: str) -> None:
        self.reason, self.after_s = reason, after_s
        super().__init__(about)


class Limiter:
    """What is left of one credential's limits."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._paused_until_s = 0.0
        self._requests, self._requests_until_s = -1, 0.0
        self._tokens, self._tokens_until_s = -1, 0.0

    def take(self, *, tokens: int) -> None:
        """Count one request of about so many tokens.

        Raises:
            ExhaustedError: `rate_limited`, until when.
        """
        now_s = self._now_s()
        if now_s < self._paused_until_s:
            self._refuse(self._paused_until_s - now_s, "the provider asked for a pause")
        has_requests = self._requests >= 0 and now_s < self._requests_until_s
        has_tokens = self._tokens >= 0 and now_s < self._tokens_until_s
        if has_requests and self._requests < 1:
            self._refuse(self._requests_until_s - now_s, "no requests are left")
        # A request larger than the whole limit is the provider's to refuse, not ours to hold for ever.
        if has_tokens and self._tokens < 1:
            self._refuse(self._tokens_until_s - now_s, "no tokens are left")
        if has_requests:
            self._requests -= 1
        if has_tokens:
            self._tokens = max(0, self._tokens - tokens)

    def hear(self, quota: Quota | None) -> None:
        """What an answer's headers said."""
        if quota is None:
            return
        now_s = self._now_s()
        if quota.requests_left >= 0 and quota.requests_reset_ms >= 0:
            self._requests, self._requests_until_s = quota.requests_left, now_s + quota.requests_reset_ms / 1000
        if quota.tokens_left >= 0 and quota.tokens_reset_ms >= 0:
            self._tokens, self._tokens_until_s = quota.tokens_left, now_s + quota.tokens_reset_ms / 1000

    def pause(self, retry_after_ms: int) -> None:
        """The provider said 429: nobody calls with this credential until then."""
        wait_s = retry_after_ms / 1000 if retry_after_ms > 0 else SILENT_PAUSE_S
        self._paused_until_s = max(self._paused_until_s, self._now_s() + wait_s)

    @staticmethod
    def _refuse(after_s: float, why: str) -> None:
        msg = "rate_limited"
        raise ExhaustedError(msg, after_s, why)


class Bulkhead:
    """So many calls in flight and no more. Who comes first goes first."""

    def __init__(self, name: str, places: int) -> None:
        self.name, self._places = name, places
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0
        self.narrow = False
        """Half the places, while a hint says that the provider is in trouble."""

    @property
    def places(self) -> int:
        """Calls that may be in flight."""
        return max(1, self._places // 2) if self.narrow else self._places

    async def enter(self, within_s: float) -> None:
        """Return with a place, which `leave` gives back.

        Raises:
            ExhaustedError: `bulkhead_full`, no place came free in time, or too many wait.
        """
        if self.in_flight < self.places and not self._waiting:
            self.in_flight += 1
            return
        if len(self._waiting) >= QUEUE_FACTOR * self._places:
            self._refuse(within_s, f"{len(self._waiting)} calls wait")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(within_s):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self.leave()  # it came at the same moment
            elif place in self._waiting:
                self._waiting.remove(place)
            if isinstance(error, TimeoutError):
                self._refuse(within_s, f"no place came free within {within_s:g} s")
            raise

    def leave(self) -> None:
        """Give the place back; the first who waits has it."""
        self.in_flight -= 1
        while self._waiting and self.in_flight < self.places:
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)

    def _refuse(self, after_s: float, why: str) -> None:
        msg = "bulkhead_full"
        raise ExhaustedError(msg, after_s, f"{self.name}: {self.in_flight} calls are in flight, {why}")


@contextmanager
def given_back(bulkhead: Bulkhead) -> "Iterator[None]":
    """Whatever happens inside, the place is free again afterwards."""
    try:
        yield
    finally:
        bulkhead.leave()
