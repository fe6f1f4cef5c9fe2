"""What stands between an attempt and a model, outermost first: deadline → budget → rate limiter → bulkhead → breaker.

Whoever refuses before the call says until when. The call then takes the next model of its list; where all refuse, the
order is deferred, which uses up no attempt. An error of the call itself is the attempt's: nothing here calls twice.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, NoReturn, TypeVar

import msgspec

from headrace.contracts.canonical import blake2b_hex
from headrace.contracts.errors import HeadraceError
from headrace.runtime.clock import Clock
from headrace.runtime.entropy import Entropy
from headrace_step_executor.breakers import AsyncBreaker, Change, OpenError
from headrace_step_executor.limits import Bulkhead, ExhaustedError, Limiter, given_back
from headrace_step_executor.providers.failures import ProviderError
from headrace_step_executor.providers.protocol import GenerateRequest, GenerateResponse, OnDelta
from headrace_step_executor.providers.registry import Identity, Providers

KEPT_MAX: Final = 1_000
"""Breakers, bulkheads and limiters of one process; model names come from authors, so the oldest quiet ones go."""
PLACE_WAIT_S: Final = 5.0
"""Longer than this nobody waits here for a place: the order is deferred."""
CREDENTIAL_LOOK_S: Final = 30.0
"""How often an order that waits for another key looks whether there is one; nothing is called meanwhile."""
CHARS_A_TOKEN: Final = 4
"""A rough English average, for what is counted down before the provider says."""
K = TypeVar("K")
V = TypeVar("V")


class Target(NamedTuple):
    """What a breaker and a bulkhead are for."""

    provider: str
    endpoint: str
    model: str

    @property
    def name(self) -> str:
        """A token for subjects: readable, and no two targets share one."""
        whole = "/".join(filter(None, self))
        plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in whole)
        return f"{plain[:80]}-{blake2b_hex(repr(tuple(self)).encode(), digest_bytes=4)}"


class DeferredError(HeadraceError):
    """The call can't be made now. `reason`: breaker_open, rate_limited, bulkhead_full, credential."""

    code = "deferred"

    def __init__(self, reason: str, after_s: float, about: str) -> None:
        self.reason, self.after_s = reason, max(0.0, after_s)
        super().__init__(about)


Told = Callable[[Target, Change], None]
Admit = Callable[[str, GenerateRequest], GenerateRequest]
"""(`provider/model`, request) → the request as it may be paid for. Raises what ends the attempt."""


class Guards:
    """All guards of one process.

    Args:
        places: Calls in flight for each provider and model.
        told: Hears of breakers' transitions.
    """

    def __init__(
        self,
        providers: Providers,
        clock: Clock,
        entropy: Entropy,
        *,
        places: int,
        told: Told | None = None,
    ) -> None:
        self._providers, self._clock, self._entropy, self._places = providers, clock, entropy, places
        self.told = told
        self._breakers: dict[Target, AsyncBreaker] = {}
        self._bulkheads: dict[Target, Bulkhead] = {}
        self._limiters: dict[tuple[str, Identity], Limiter] = {}
        self._refused: dict[tuple[str, Identity], None] = {}
        """Credentials that the provider does not take."""

    async def generate(
        self,
        models: tuple[str, ...],
        request: GenerateRequest,
        *,
        deadline_s: float,
        admit: Admit = lambda _model, request: request,
        on_delta: OnDelta | None = None,
    ) -> GenerateResponse:
        """The answer of the first of `models` (`provider/model`) that may be called now.

        Args:
            admit: The attempt's budget, asked before anything is counted or waited for. What it admitted for one model
                is replaced by what it admits for the next.

        Raises:
            ProviderError: the call was made and failed.
            DeferredError: none may be called now; the earliest says until when.
        """
        until_s = self._clock.monotonic_s() + deadline_s
        refused: list[DeferredError] = []
        for whole in models:
            try:
                return await self._guarded(whole, request, until_s, admit, on_delta)
            except DeferredError as error:
                refused.append(error)
        raise min(refused, key=lambda error: error.after_s)

    async def _guarded(
        self, whole: str, request: GenerateRequest, until_s: float, admit: Admit, on_delta: OnDelta | None
    ) -> GenerateResponse:
        provider, _, model = whole.partition("/")
        adapter = self._providers.get(provider)
        identity = await self._providers.identity(provider)
        account, target = (provider, identity), Target(provider, identity.endpoint, model)
        breaker = self.breaker(target)
        if (open_s := breaker.due_in_s) > 0:  # known before anything is counted or waited for
            self._without_breaker(breaker, open_s)
        request = admit(whole, msgspec.structs.replace(request, model=model))
        limiter, bulkhead = self._limiter(account), self._bulkhead(target)
        if account in self._refused:
            self._without_credential(provider)
        try:
            limiter.take(tokens=sum(len(message.said) for message in request.messages) // CHARS_A_TOKEN)
            bulkhead.narrow = breaker.hinted
            await bulkhead.enter(min(PLACE_WAIT_S, max(0.001, until_s - self._clock.monotonic_s())))
            with given_back(bulkhead):
                return await breaker.call(
                    lambda: self._called(adapter.generate, account, request, until_s, on_delta), counts=_counts
                )
        except OpenError as error:
            self._without_breaker(breaker, error.after_s)
        except ExhaustedError as error:
            raise DeferredError(error.reason, error.after_s, f"{provider}: {error}") from error

    async def _called(
        self,
        generate: Callable[..., Awaitable[GenerateResponse]],
        account: tuple[str, Identity],
        request: GenerateRequest,
        until_s: float,
        on_delta: OnDelta | None,
    ) -> GenerateResponse:
        limiter = self._limiter(account)
        try:
            response = await generate(
                request, deadline_s=max(0.001, until_s - self._clock.monotonic_s()), on_delta=on_delta
            )
        except ProviderError as error:
            limiter.hear(error.quota)
            if error.attempt_code == "rate_limited":
                limiter.pause(error.retry_after_ms)
            if error.attempt_code == "auth" and account[1].credential:
                _keep(self._refused, account, None)
                self._without_credential(account[0])
            raise
        limiter.hear(response.quota)
        return response

    @staticmethod
    def _without_breaker(breaker: AsyncBreaker, after_s: float) -> NoReturn:
        msg = "breaker_open"
        raise DeferredError(msg, after_s, f"breaker {breaker.name}: {breaker.cause or 'it has closed and recovers'}")

    def _without_credential(self, provider: str) -> NoReturn:
        msg = "credential"
        about = f"the provider `{provider}` does not take the key; it goes on once there is another"
        raise DeferredError(msg, CREDENTIAL_LOOK_S, about)

    def breaker(self, target: Target) -> AsyncBreaker:
        """The breaker of a target, made when there is none."""
        found = self._breakers.get(target)
        if found is None:

            def changed(change: Change) -> None:
                if self.told is not None:
                    self.told(target, change)

            found = AsyncBreaker(
                target.name, now_s=self._clock.monotonic_s, jitter=self._entropy.jitter, changed=changed
            )
            _keep(self._breakers, target, found)
        return found

    def _bulkhead(self, target: Target) -> Bulkhead:
        found = self._bulkheads.get(target)
        if found is None:
            quiet = [name for name, held in self._bulkheads.items() if held.in_flight == 0]
            if len(self._bulkheads) >= KEPT_MAX and quiet:
                del self._bulkheads[quiet[0]]
            found = self._bulkheads[target] = Bulkhead(target.name, self._places)
        return found

    def _limiter(self, account: tuple[str, Identity]) -> Limiter:
        found = self._limiters.get(account)
        if found is None:
            found = Limiter(self._clock.monotonic_s)
            _keep(self._limiters, account, found)
        return found


def _counts(error: Exception) -> bool:
    return isinstance(error, ProviderError) and error.counts_for_breaker


def _keep(kept: dict[K, V], key: K, value: V) -> None:
    while len(kept) >= KEPT_MAX:
        del kept[next(iter(kept))]
    kept[key] = value
