"""A tool worker: answers calls of tools over the bus. Several of one kind share the calls between them.

An answer is sent for every call that is taken: a result, or an error with a code. A worker that dies in a call answers
nothing; whoever called then hears of a timeout and tries again, at another worker.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, Final, Protocol

import msgspec

from headrace.client.service_protocol import Discovery, Endpoint
from headrace.client.tool import CallInfo, endpoint_of
from headrace.contracts import codec, ids, subjects
from headrace.contracts.errors import ConflictError, DataError, HeadraceError, MalformedMessageError, UnavailableError
from headrace.contracts.events import ToolSpec
from headrace.contracts.failure import Failure
from headrace.contracts.live import Reply, Request
from headrace.runtime.api import ServiceError, call
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Bus, BusMessage, Subscription
from headrace.runtime.supervisor import Supervisor
from headrace.runtime.threads import DaemonThreads

log = logging.getLogger("headrace.worker")

QUEUE: Final = "workers"
WAITING_MAX: Final = 1_024
"""Calls that wait for their turn; beyond it the caller is sent away at once, to try another worker."""
REGISTER_PAUSE_S: Final = 1.0


class Callee(Protocol):
    """A tool that a worker can serve."""

    @property
    def spec(self) -> ToolSpec:
        """What it is. The endpoint is the worker's to say."""
        ...

    async def call(self, given: bytes, info: CallInfo, threads: Executor) -> Any:
        """The result for JSON arguments, as something that JSON can hold. Raises as `Tool.call`."""
        ...


class ToolWorker:
    """Serves tools of one tenant.

    Args:
        name: Of the service, for discovery: letters, digits, `-` and `_`.
        instance: Of this process.
        in_flight_max: Calls that run at a time; others wait, at most until their deadline.
    """

    def __init__(
        self,
        bus: Bus,
        supervisor: Supervisor,
        tools: Sequence[Callee],
        *,
        clock: Clock,
        tenant: str,
        name: str,
        instance: str,
        in_flight_max: int = 16,
    ) -> None:
        self._bus, self._supervisor, self._clock, self.tenant = bus, supervisor, clock, tenant
        self._turn = asyncio.Semaphore(in_flight_max)
        self._threads = DaemonThreads(in_flight_max, name="tool")
        self._in_work: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Subscription] = []
        self._served = [(tool, self._endpoint(tool)) for tool in tools]
        self.specs = tuple(
            msgspec.structs.replace(tool.spec, endpoint=endpoint_of(tool.spec, tenant)) for tool in tools
        )
        self._instance = instance
        self._discovery = Discovery(
            bus,
            name=name,
            instance=instance,
            description=f"{len(tools)} tools for pipelines",
            endpoints=[endpoint for _, endpoint in self._served],
        )

    async def start(self) -> None:
        """Answer calls from now on, and be found."""
        for tool, endpoint in self._served:
            handler = self._handler(tool, endpoint)
            self._subscriptions.append(await self._bus.subscribe(endpoint.subject, handler, queue=QUEUE))
        await self._discovery.start(self._clock)

    async def register(self) -> None:
        """Return when every tool is in the catalogue, however long the registry is away.

        Raises:
            ConflictError: a version exists with another specification. DataError: the registry refuses one.
        """
        for spec in self.specs:
            await self.register_one(spec)

    async def register_one(self, spec: ToolSpec) -> None:
        """As `register`, for one of `specs`."""
        while not await self._registered(spec):
            await self._clock.sleep(REGISTER_PAUSE_S)

    async def stop(self, *, within_s: float) -> None:
        """Take no more calls and finish those in work; what is not done `within_s` is let go of. Idempotent."""
        for subscription in self._subscriptions:
            await subscription.stop()
        self._subscriptions.clear()
        await self._discovery.stop()
        if self._in_work:
            _, left = await asyncio.wait(self._in_work, timeout=within_s)
            for task in left:
                task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _registered(self, spec: ToolSpec) -> bool:
        request_id = f"{self._instance}-{ids.token(spec.tool)}-{ids.token(spec.version)}"[:128]
        try:
            await call(
                self._bus, "tool-registry", "register", spec, ToolSpec, tenant=self.tenant, request_id=request_id
            )
        except ServiceError as error:
            if error.refusal.retryable:
                log.warning("worker.not_registered_yet", extra={"tool": spec.tool, "why": str(error)})
                return False
            refused = ConflictError if error.refusal.code == ConflictError.code else DataError
            raise refused(error.refusal.message) from error
        except UnavailableError as error:
            log.warning("worker.not_registered_yet", extra={"tool": spec.tool, "why": str(error)})
            return False
        log.info("worker.registered", extra={"tool": spec.tool, "version": spec.version})
        return True

    def _endpoint(self, tool: Callee) -> Endpoint:
        spec = tool.spec
        return Endpoint(
            name=ids.token(spec.tool),
            subject=endpoint_of(spec, self.tenant).removeprefix(subjects.RESPONDER),
            queue=QUEUE,
            metadata={"tool": spec.tool, "version": spec.version, "effect": spec.effect, "risk": spec.risk},
        )

    def _handler(self, tool: Callee, endpoint: Endpoint) -> Any:
        async def handle(message: BusMessage) -> None:
            if len(self._in_work) >= WAITING_MAX:
                text = f"{tool.spec.tool}: {WAITING_MAX} calls wait here"
                busy = Failure(code="tool_unavailable", message=text, retryable=True)
                await message.respond(codec.encode(Reply(error=busy)))
                return
            task = self._supervisor.spawn(self._answer(tool, endpoint, message), f"worker.{tool.spec.tool}")
            self._in_work.add(task)
            task.add_done_callback(self._in_work.discard)

        return handle

    async def _answer(self, tool: Callee, endpoint: Endpoint, message: BusMessage) -> None:
        began_s = self._clock.monotonic_s()
        reply = await self._reply(tool, message)
        error = "" if reply.error is None else f"{reply.error.code}: {reply.error.message}"
        endpoint.count(took_s=self._clock.monotonic_s() - began_s, error=error)
        await message.respond(codec.encode(reply))

    async def _reply(self, tool: Callee, message: BusMessage) -> Reply:
        spec = tool.spec
        try:
            request = codec.decode_as(Request, message.body)
            timeout_s = min(request.timeout_ms or spec.timeout_ms, spec.timeout_ms) / 1000
            async with asyncio.timeout(timeout_s) as limit, self._turn:
                result = await self._run(tool, request, timeout_s)
        except TimeoutError as error:
            if limit.expired():
                text = f"{spec.tool}: no result within {timeout_s:g} s"
                return Reply(error=Failure(code="tool_timeout", message=text, retryable=True))
            return _crashed(spec, error)
        except (DataError, MalformedMessageError) as error:
            return Reply(error=Failure(code="tool_args_invalid", message=str(error)[:2000]))
        except HeadraceError as error:  # the tool's own, with its own code
            return Reply(error=error.failure())
        except Exception as error:
            log.exception("tool.crashed", extra={"tool": spec.tool})
            return _crashed(spec, error)
        return _result(spec, result)

    async def _run(self, tool: Callee, request: Request, timeout_s: float) -> Any:
        key = request.id.rpartition("/")[0] or request.id
        info = CallInfo(id=request.id, key=key, tenant=request.tenant, timeout_s=timeout_s)
        return await tool.call(bytes(request.data), info, self._threads)


def _result(spec: ToolSpec, result: Any) -> Reply:
    try:
        data = codec.encode(result)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        text = f"{spec.tool}: the result cannot be written as JSON: {error}"[:500]
        return Reply(error=Failure(code="tool_crashed", message=text))
    if len(data) > spec.result_bytes_max:
        text = f"{spec.tool}: {len(data)} bytes; at most {spec.result_bytes_max}"
        return Reply(error=Failure(code="too_large", message=text))
    return Reply(data=msgspec.Raw(data))


def _crashed(spec: ToolSpec, error: Exception) -> Reply:
    text = f"{spec.tool}: {type(error).__name__}: {error}"[:500]
    return Reply(error=Failure(code="tool_crashed", message=text, retryable=True))
