"""One attempt, from order to outcome: rendered, claimed if need be, called, its result made small. Never
retries."""

import asyncio
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import ids, names
from headrace.contracts.envelope import Value
from headrace.contracts.errors import AttemptError, HeadraceError, TooLargeError
from headrace.contracts.failure import Failure
from headrace.pipeline.prices import PriceTable
from headrace.runtime import blobs
from headrace.runtime.clock import Clock
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.entropy import Entropy
from headrace.runtime.eventlog import EventLog
from headrace.runtime.values import encode_checked
from headrace_step_executor import model_loop
from headrace_step_executor.artifacts import collect
from headrace_step_executor.broker_time import BrokerTime
from headrace_step_executor.claims import claim, source_of
from headrace_step_executor.decide import Received, settled_failure
from headrace_step_executor.guards import DeferredError, Guards
from headrace_step_executor.metering import Meter
from headrace_step_executor.model_tools import ModelTools
from headrace_step_executor.providers.protocol import GenerateRequest, GenerateResponse, request_of
from headrace_step_executor.rendering import Rendering
from headrace_step_executor.round_log import RoundLog
from headrace_step_executor.tool_calls import ToolCalls
from headrace_step_executor.tools.beneath import Workspace

log = logging.getLogger("headrace.executor")

WORKSPACES: Final = "workspaces"
DEFER_SPREAD: Final = 0.2
"""Orders that wait for the same thing come back over a fifth of the wait, not all at once."""
T = TypeVar("T")


class FailedError(HeadraceError):
    """A failure that is data already."""

    def __init__(self, failure: Failure) -> None:
        self.data = failure
        super().__init__(failure.message)

    def failure(self) -> Failure:
        """As it was given."""
        return self.data


class _LetGoError(HeadraceError):
    """Somebody else holds the call."""


@dataclass(slots=True)
class _Progress:
    """What is known of an attempt while it runs, for its report."""

    began_s: float
    limit_s: float
    called: bool = False
    """The outside world may have noticed."""
    usage: ev.Usage | None = None
    meter: Meter | None = None
    files: dict[str, str] = field(default_factory=dict)

    def pay(self, usage: ev.Usage | None) -> None:
        """Count what one more model call of this attempt used."""
        if usage is not None:
            self.usage = usage if self.usage is None else added(self.usage, usage)

    @property
    def cost(self) -> ev.Cost | None:
        """What its model calls cost; None when it made none."""
        return None if self.meter is None else self.meter.cost


@dataclass(slots=True, frozen=True)
class Places:
    """Where runs may work, when, and at what prices. Paths are absolute."""

    data_dir: Path
    read_roots: tuple[Path, ...]
    time: BrokerTime
    prices: PriceTable

    def workspace(self, tenant: str, run: str) -> Workspace:
        """A run's own. Tenant and run are checked tokens, so the path stays below the data directory."""
        return Workspace(f"{self.data_dir}/{WORKSPACES}/{tenant}/{run}", self.read_roots)


class Attempts:
    """Runs attempts. Holds nothing of them afterwards."""

    def __init__(
        self,
        eventlog: EventLog,
        *,
        rendering: Rendering,
        tools: ToolCalls,
        guards: Guards,
        clock: Clock,
        entropy: Entropy,
        instance: str,
        places: Places,
    ) -> None:
        self._log, self._rendering, self._tools, self._guards = eventlog, rendering, tools, guards
        self._clock, self._entropy, self._instance = clock, entropy, instance
        self._places, self._secrets = places, rendering.secrets

    async def run(self, received: Received) -> ev.Succeeded | ev.Failed | ev.Deferred | None:
        """What to report, secrets hidden; None when somebody else holds the call and nothing is to be reported.

        Cancelling it stops the work: threads are told, worker processes killed, requests aborted.
        """
        outcome = await self._run(received)
        return None if outcome is None else self._secrets.hidden(outcome)

    async def _run(self, received: Received) -> ev.Succeeded | ev.Failed | ev.Deferred | None:
        order = received.order
        began_s = self._clock.monotonic_s()
        left_ms = max(1, min(order.timeout_ms, order.due_ms - self._places.time.now_ms()))
        progress = _Progress(began_s, left_ms / 1000)
        try:
            async with asyncio.timeout(progress.limit_s) as limit:
                return await self._work(received, progress)
        except _LetGoError:
            return None
        except TimeoutError as error:
            if not limit.expired():
                return self._failed(received, progress, _internal(received, error))
            message = f"{order.path}: no result within {progress.limit_s:.3f} s"
            return self._failed(received, progress, Failure(code="timeout", message=message, retryable=True))
        except DeferredError as error:
            return self._deferred(received, progress, error)
        except HeadraceError as error:
            return self._failed(received, progress, error.failure())
        except Exception as error:  # noqa: BLE001 - our own bug must fail this attempt and no other
            return self._failed(received, progress, _internal(received, error))

    def _failed(self, received: Received, progress: _Progress, failure: Failure) -> ev.Failed:
        order = received.order
        return ev.Failed(
            decision=order.decision,
            offer=order.offer,
            failure=settled_failure(order, failure, called=progress.called),
            duration_ms=self._duration_ms(progress),
            usage=progress.usage,
            cost=progress.cost or (None if order.reserved is None else ev.Cost()),
        )

    def _deferred(self, received: Received, progress: _Progress, error: DeferredError) -> ev.Deferred | ev.Failed:
        """The order is offered again later, in this same attempt; a claimed call can't be claimed again in it."""
        order, wait_ms = received.order, int(error.after_s * 1000 * (1 + DEFER_SPREAD * self._entropy.jitter()))
        if order.effect == "at_most_once":
            failure = Failure(code=error.reason, message=str(error)[:1000], retryable=True, retry_after_ms=wait_ms)
            return self._failed(received, progress, failure)
        due_ms = self._places.time.now_ms() + wait_ms
        return ev.Deferred(
            decision=order.decision, offer=order.offer, reason=error.reason, due_ms=due_ms, detail=str(error)[:1000]
        )

    def _duration_ms(self, progress: _Progress) -> int:
        return int((self._clock.monotonic_s() - progress.began_s) * 1000)

    async def _work(self, received: Received, progress: _Progress) -> ev.Succeeded:
        order, message = received.order, received.message
        workspace = self._places.workspace(message.tenant, message.runid)
        crashpoint("attempt_running")
        data = await self._input(received, workspace, progress)
        match order.kind:
            case "transform" | "evaluate":
                result = data
            case "tool":
                result = await self._tool(received, workspace, progress, data)
            case "llm":
                result = await self._model(received, workspace, progress, data)
            case _:
                msg = "internal"
                raise AttemptError(msg, f"an order of kind {order.kind[:50]!r}", retryable=False)
        artifacts = await collect(self._log, self._tools.threads, received, workspace, self._secrets)
        return ev.Succeeded(
            decision=order.decision,
            offer=order.offer,
            output=await self._stored(received, result),
            duration_ms=self._duration_ms(progress),
            usage=progress.usage,
            cost=progress.cost,
            artifacts=artifacts,
            files=progress.files,
        )

    async def _input(self, received: Received, workspace: Workspace, progress: _Progress) -> bytes:
        order = received.order
        if isinstance(order.input, msgspec.Raw):
            return bytes(order.input)
        rendered = await self._rendering.render(order, received.message.tenant, workspace)
        if rendered.failure is not None:
            raise FailedError(rendered.failure)
        progress.files = rendered.files
        return rendered.output

    async def _tool(self, received: Received, workspace: Workspace, progress: _Progress, data: bytes) -> bytes:
        tool = self._tools.prepare(received, data)
        await self._claimed(received, progress)
        return await self._tools.call(tool, received, workspace, left_s=self._left_s(progress))

    async def _model(self, received: Received, workspace: Workspace, progress: _Progress, data: bytes) -> bytes:
        order = received.order
        key = ids.idempotency_key(received.message.runid, order.path)
        loop, spec = model_loop.split(msgspec.json.decode(data))
        models, request = request_of(spec, key=key, attempt=order.attempt)
        meter = progress.meter = Meter(self._places.prices, spec, order.reserved)
        tools = ModelTools(self._tools, received, loop.tools, clock=self._clock)
        await self._claimed(received, progress)

        async def ask(asked: GenerateRequest) -> GenerateResponse:
            try:
                response = await self._guards.generate(
                    models, asked, deadline_s=self._left_s(progress), admit=meter.admit
                )
            except DeferredError:
                meter.withdrawn()
                raise
            except BaseException as error:
                if meter.calling:
                    progress.pay(meter.failed(error))
                raise
            progress.pay(response.usage)
            meter.paid(response.usage)
            return response

        def recall(said: GenerateResponse, attempt: int) -> None:
            if attempt == order.attempt:
                progress.pay(said.usage)
                meter.recalled(models[0], said.usage)

        if not loop.loops:
            said = await ask(request)
            shown = {"text": said.text, "model": said.model, "finish_reason": said.finish_reason}
            return encode_checked(shown | ({"replaced": True} if said.replaced else {}))
        around = model_loop.Surrounding(
            ask=ask,
            recalled=recall,
            store=lambda value: self._stored(received, value),
            keep=lambda value: self._kept(received, value),
            load=lambda value: self._loaded(received, value),
            left_s=lambda: self._left_s(progress),
            workspace=workspace,
        )
        start = model_loop.start_hash(self._secrets.hide_bytes(data))
        source, hide = source_of(self._instance), self._secrets.hidden
        told = RoundLog(self._log, received, start=start, source=source, clock=self._clock, hide=hide)
        return await model_loop.ModelLoop(loop, received, around, log=told, tools=tools, clock=self._clock).run(request)

    async def _kept(self, received: Received, data: bytes) -> str:
        """The reference under which bytes are stored, without secrets."""
        data = await self._in_thread(self._secrets.hide_bytes, data)
        return await blobs.put(self._log, received.message.tenant, received.message.runid, data)

    async def _loaded(self, received: Received, value: Value) -> bytes:
        if isinstance(value.json, msgspec.Raw):
            return bytes(value.json)
        return await blobs.get(self._log, received.message.tenant, value.ref)

    async def _claimed(self, received: Received, progress: _Progress) -> None:
        """Return when the call may be made."""
        if received.order.effect == "at_most_once":
            token = f"{self._entropy.bits(128):032x}"
            if not await claim(self._log, received, executor=self._instance, token=token, clock=self._clock):
                log.info("claim.held_by_another", extra={"run_id": received.message.runid})
                raise _LetGoError(received.order.path)
        progress.called = True

    def _left_s(self, progress: _Progress) -> float:
        return max(0.001, progress.limit_s - (self._clock.monotonic_s() - progress.began_s))

    async def _stored(self, received: Received, data: bytes) -> Value:
        """The result as a value; a large one is stored before the report that names it, without secrets."""
        if len(data) <= names.INLINE_BYTES_MAX:
            return Value(json=msgspec.Raw(data))
        data = await self._in_thread(self._secrets.hide_bytes, data)
        try:
            ref = await blobs.put(self._log, received.message.tenant, received.message.runid, data)
        except TooLargeError as error:
            msg = "too_large"
            raise AttemptError(msg, str(error), retryable=False) from error
        return Value(ref=ref, size=len(data), count=await self._count(data))

    async def _count(self, data: bytes) -> int:
        """Elements of a large list: whoever maps over it must know how many there are without loading it."""
        if not data.startswith(b"["):
            return -1
        return len(await self._in_thread(functools.partial(msgspec.json.decode, type=list[msgspec.Raw]), data))

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._tools.threads, work, *args)


def added(one: ev.Usage, more: ev.Usage) -> ev.Usage:
    """The tokens of both; the model is that of the later call."""
    return ev.Usage(
        input_tokens=one.input_tokens + more.input_tokens,
        output_tokens=one.output_tokens + more.output_tokens,
        cached_tokens=one.cached_tokens + more.cached_tokens,
        reasoning_tokens=one.reasoning_tokens + more.reasoning_tokens,
        model=more.model,
    )


def _internal(received: Received, error: Exception) -> Failure:
    log.error(
        "attempt.internal_error",
        extra={"run_id": received.message.runid, "step_id": received.order.path},
        exc_info=error,
    )
    return Failure(code="internal", message=f"{type(error).__name__}: {error}"[:1000])
