"""Guards around model calls: who refuses says until when, the next model is taken, and an outage makes no storm."""

import asyncio
import heapq
import itertools
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from headrace.contracts.events import Usage
from headrace.runtime.entropy import SeededEntropy
from headrace_step_executor.guards import CREDENTIAL_LOOK_S, DeferredError, Guards, Target
from headrace_step_executor.providers.failures import ProviderError, provider_error
from headrace_step_executor.providers.messages import ChatMessage, Quota, TextPart
from headrace_step_executor.providers.protocol import GenerateRequest, GenerateResponse
from headrace_step_executor.providers.registry import Providers

REQUEST: Final = GenerateRequest(model="", messages=(ChatMessage(role="user", content="hello"),), key="r1/a")


class StandingClock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.s = 1_000.0

    def now_ms(self) -> int:
        return int(self.s * 1000)

    def monotonic_s(self) -> float:
        return self.s

    async def sleep(self, seconds: float) -> None:
        self.s += seconds

    def learn(self, broker_ms: int) -> None:
        pytest.fail("no guard sets a clock")


class Model:
    """A provider whose health is a switch."""

    def __init__(self) -> None:
        self.fault: ProviderError | None = None
        self.quota: Quota | None = None
        self.calls = 0
        self.gate: asyncio.Event | None = None

    async def generate(self, request: GenerateRequest, **_how: Any) -> GenerateResponse:
        self.calls += 1
        if self.gate is not None:
            async with asyncio.timeout(5):
                await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return GenerateResponse(
            parts=(TextPart(text=request.model),), model=request.model, finish_reason="stop", usage=Usage(),
            quota=self.quota,
        )  # fmt: skip


class Stage:
    def __init__(self, *, places: int = 32, environ: dict[str, str] | None = None) -> None:
        self.clock, self.models = StandingClock(), {name: Model() for name in ("one", "two")}
        self.environ = environ or {}
        self.providers = Providers(self.clock, environ=self.environ, read_roots=())
        for name, model in self.models.items():
            self.providers.add(name, model)
        self.guards = Guards(self.providers, self.clock, SeededEntropy(1), places=places)

    async def ask(self, *models: str) -> str:
        return (await self.guards.generate(models or ("one/m",), REQUEST, deadline_s=60)).text

    async def deferred(self, *models: str) -> DeferredError:
        with pytest.raises(DeferredError) as raised:
            await self.ask(*models)
        return raised.value

    async def outage(self) -> None:
        """The first model fails until its breaker opens."""
        self.models["one"].fault = provider_error("unavailable", "down")
        for _ in range(5):
            with pytest.raises(ProviderError):
                await self.ask()


async def test_otp_s13_an_open_breaker_takes_the_next_model_of_the_list() -> None:
    """No call is made of the first; the answer is the second's; other models of the provider are unaffected."""
    stage = Stage()
    await stage.outage()
    assert await stage.ask("one/m", "two/n") == "n"
    assert stage.models["one"].calls == 5
    stage.models["one"].fault = None
    assert await stage.ask("one/other") == "other"


async def test_otp_s13_when_every_model_refuses_the_earliest_says_until_when() -> None:
    """The reason and the wait are those of the one that may be asked first."""
    stage = Stage()
    await stage.outage()
    refused = await stage.deferred()
    assert refused.reason == "breaker_open"
    assert 24 <= refused.after_s <= 36
    assert "unavailable: down" in str(refused)
    stage.models["two"].fault = provider_error("rate_limited", "slow", retry_after_ms=7_000)
    with pytest.raises(ProviderError):  # the call itself fails, and nothing here asks another in its place
        await stage.ask("two/n")
    refused = await stage.deferred("one/m", "two/n")
    assert (refused.reason, refused.after_s) == ("rate_limited", pytest.approx(7.0))


async def test_a_429_is_no_outage_and_pauses_the_whole_key() -> None:
    """Other models of the key wait as well; nobody calls before Retry-After; the breaker has no part in it."""
    stage = Stage()
    stage.models["one"].fault = provider_error("rate_limited", "slow", retry_after_ms=2_000)
    for _ in range(20):
        with pytest.raises(ProviderError):
            await stage.ask()
        assert (await stage.deferred("one/other")).reason == "rate_limited"
        stage.clock.s += 2
    assert stage.models["one"].calls == 20
    assert stage.guards.breaker(Target("one", "", "m")).state == "closed"


async def test_quotas_of_answers_are_kept_to() -> None:
    """The headers of an answer say how many more there may be."""
    stage = Stage()
    stage.models["one"].quota = Quota(requests_left=0, requests_reset_ms=4_000)
    await stage.ask()
    assert (await stage.deferred()).after_s == pytest.approx(4)
    stage.clock.s += 4
    await stage.ask()


async def test_what_is_the_requests_fault_opens_nothing() -> None:
    """Refusals, too long conversations, wrong requests, cancellations."""
    stage = Stage()
    for code in ("refused", "context_too_long", "invalid_request", "auth"):
        stage.models["one"].fault = provider_error(code, "no")
        for _ in range(10):
            with pytest.raises(ProviderError):
                await stage.ask()
    assert stage.models["one"].calls == 40


async def test_input_44_a_refused_key_is_not_tried_again_until_there_is_another(tmp_path: Path) -> None:
    """401: no attempt is burnt and nothing more is called; a rotated file is all it takes."""
    (tmp_path / "key").write_text("old")
    stage = Stage(environ={"OPENAI_API_KEY_FILE": str(tmp_path / "key")})
    model = Model()
    model.fault = provider_error("auth", "401")
    stage.providers.networked["openai"] = model  # the vendor's wire is the contract suite's business
    stage.providers.add("openai", model)
    for _ in range(3):
        refused = await stage.deferred("openai/m")
        assert (refused.reason, refused.after_s) == ("credential", CREDENTIAL_LOOK_S)
    assert model.calls == 1
    (tmp_path / "key").write_text("new")
    model.fault = None
    assert await stage.ask("openai/m") == "m"


async def test_otp_s13_a_full_bulkhead_refuses_and_a_cancelled_call_leaves_it() -> None:
    """Never more than its places are in flight."""
    stage = Stage(places=2)
    stage.models["one"].gate = asyncio.Event()
    tasks = [asyncio.create_task(stage.ask()) for _ in range(6)]
    await asyncio.sleep(0.01)
    assert stage.models["one"].calls == 2
    assert (await stage.deferred()).reason == "bulkhead_full"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    stage.models["one"].gate = None
    assert await stage.ask() == "m"


async def test_the_budget_is_asked_before_anything_is_counted() -> None:
    """What it raises is the attempt's end, and no call is made."""
    stage = Stage()

    def spent(model: str, request: GenerateRequest) -> GenerateRequest:
        raise ProviderError("invalid_request", f"{model} for {request.model}: nothing left", retryable=False)

    with pytest.raises(ProviderError, match="one/m for m: nothing left"):
        await stage.guards.generate(("one/m",), REQUEST, deadline_s=60, admit=spent)
    assert stage.models["one"].calls == 0


def test_names_of_breakers_are_tokens_and_differ() -> None:
    """Whatever a model is called."""
    targets = [Target("p", "", "a/b"), Target("p", "", "a-b"), Target("p", "h:1", "ä" * 300), Target("p", "h-1", "x")]
    names = {target.name for target in targets}
    assert len(names) == len(targets)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") for name in names)


# --- ten minutes of outage ------------------------------------------------------------------------------

PER_S: Final = 50
REPLICAS: Final = 2
DOWN_S: Final = (60, 660)


async def test_an_outage_of_ten_minutes_at_50_calls_a_second_makes_no_storm() -> None:
    """In virtual seconds, two replicas, what is refused comes back when it was told to: while open at most one probe
    an interval and replica, after the recovery at most half as much again as before, the other provider as ever."""
    down = Model()
    replicas = [Stage() for _ in range(REPLICAS)]
    for stage in replicas:
        stage.models["one"] = down
        stage.providers.add("one", down)
    opened, calls, other = Counter[int](), Counter[int](), 0
    for number, stage in enumerate(replicas):
        stage.guards.told = lambda _target, change, number=number: opened.update([number] * (change.state == "open"))
    spread, order = SeededEntropy(7), itertools.count()
    agenda = [(1 / PER_S * number, next(order), True) for number in range(PER_S * 1_100)]
    heapq.heapify(agenda)
    closed_s, now_s = 0.0, 0.0
    while agenda and not (closed_s and now_s > closed_s + 12):
        now_s, number, _ = heapq.heappop(agenda)
        stage = replicas[number % REPLICAS]
        for replica in replicas:
            replica.clock.s = now_s
        down.fault = provider_error("unavailable", "down") if DOWN_S[0] <= now_s < DOWN_S[1] else None
        before = down.calls
        try:
            await stage.ask("one/m")
        except DeferredError as refused:
            again_s = now_s + refused.after_s * (1 + 0.2 * spread.jitter())
            heapq.heappush(agenda, (again_s, next(order), False))
        except ProviderError:
            pass
        calls[int(now_s)] += down.calls - before
        if number % 50 == 0:
            await stage.ask("two/m")
            other += 1
        if (
            now_s > DOWN_S[1]
            and not closed_s
            and any(each.guards.breaker(Target("one", "", "m")).state == "closed" for each in replicas)
        ):
            closed_s = now_s
    steady = 10 * PER_S
    during = sum(calls[second] for second in range(*DOWN_S))
    print(f"calls while down: {during}, opened {dict(opened)}, closed after {closed_s - DOWN_S[1]:.1f} s")
    assert during <= sum(opened.values()) - REPLICAS + 5 * REPLICAS, "more than one probe an interval"
    assert all(count <= 8 for count in opened.values())
    assert closed_s, "it never recovered"
    for begin_s in (DOWN_S[1], int(closed_s), int(closed_s) + 1):
        made = sum(calls[second] for second in range(begin_s, begin_s + 10))
        assert made <= 1.5 * steady, f"{made} calls in the 10 s from {begin_s} on; {steady} were steady"
    assert other == replicas[0].models["two"].calls + replicas[1].models["two"].calls
