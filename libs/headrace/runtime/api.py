"""Requests to services over the bus: `hr.api.<service>.<verb>`, one answer each, within a deadline.

A service answers through `Api`; whoever asks uses `call`. Any replica may answer. Every request ends as an
answer, as a refusal with a stable code, or as `unavailable` at the caller's own deadline. A retry carries
the same request id.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from headrace.contracts import codec, ids, names, subjects
from headrace.contracts.errors import HeadraceError, MalformedMessageError, TooLargeError, UnavailableError
from headrace.contracts.failure import Failure
from headrace.contracts.live import Reply, Request
from headrace.runtime.eventlog import Bus, BusMessage, Subscription
from headrace.runtime.supervisor import Supervisor

log = logging.getLogger("headrace.api")

Verb = Callable[[Request], Awaitable[Any]]
"""Answers one request with a struct, or raises a HeadraceError."""
T = TypeVar("T")

IN_FLIGHT_MAX: Final = 256
"""Requests in work per service. Beyond it a request is refused at once: waiting would outlast the caller's
deadline."""
ID_CHARS_MAX: Final = 128
ANSWER_BYTES_MAX: Final = 1_040_000
"""Just below the broker's default max_payload. A longer answer has pages."""


class ServiceError(HeadraceError):
    """A service refused a request. `refusal` has the code, the text and whether to retry."""

    code = "refused"

    def __init__(self, refusal: Failure) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)

    def failure(self) -> Failure:
        """The refusal as the service gave it."""
        return self.refusal


async def call(
    bus: Bus,
    service: str,
    verb: str,
    data: Any,
    answer: type[T],
    *,
    tenant: str,
    request_id: str,
    timeout_s: float = names.REQUEST_DEADLINE_S,
) -> T:
    """The service's answer.

    Raises:
        UnavailableError: nobody answered within `timeout_s`. The request may still be carried out: retry
        with the same `request_id`. ServiceError: it was refused. MalformedMessageError: the answer is no
        answer.
    """
    request = Request(id=request_id, tenant=tenant, data=msgspec.Raw(codec.encode(data)))
    body = await bus.request(subjects.api(service, verb), codec.encode(request), timeout_s=timeout_s)
    reply = codec.decode_as(Reply, body)
    if reply.error is not None:
        raise ServiceError(reply.error)
    if isinstance(reply.data, msgspec.UnsetType):
        msg = f"{service}.{verb}: a reply with neither data nor error"
        raise MalformedMessageError(msg)
    return codec.decode_as(answer, bytes(reply.data))


class Api:
    """Answers the verbs of a service. Requests run side by side, each within REQUEST_DEADLINE_S."""

    def __init__(
        self, bus: Bus, supervisor: Supervisor, *, service: str, verbs: Mapping[str, Verb], queue: bool = True
    ) -> None:
        self._bus, self._supervisor = bus, supervisor
        self._service, self._verbs = service, verbs
        self._queue = service if queue else ""
        self._subscriptions: list[Subscription] = []
        self._in_work: set[asyncio.Task[None]] = set()
        self.answered = 0
        self.refused = 0

    async def start(self) -> None:
        """Begin to answer."""
        for verb, answer in self._verbs.items():
            self._subscriptions.append(
                await self._bus.subscribe(
                    subjects.api(self._service, verb), self._handler(verb, answer), queue=self._queue
                )
            )

    async def stop(self) -> None:
        """Take no more requests, finish those in work (their deadline bounds it). Idempotent."""
        for subscription in self._subscriptions:
            await subscription.stop()
        self._subscriptions.clear()
        if self._in_work:
            await asyncio.wait(self._in_work, timeout=names.REQUEST_DEADLINE_S)

    def _handler(self, verb: str, answer: Verb) -> Callable[[BusMessage], Awaitable[None]]:
        async def handle(message: BusMessage) -> None:
            if len(self._in_work) >= IN_FLIGHT_MAX:
                busy = UnavailableError(f"{self._service}: {IN_FLIGHT_MAX} requests in work; try again later")
                await self._respond(message, Reply(error=busy.failure()))
                return
            task = self._supervisor.spawn(self._answer(message, verb, answer), f"api.{self._service}.{verb}")
            self._in_work.add(task)
            task.add_done_callback(self._in_work.discard)

        return handle

    async def _answer(self, message: BusMessage, verb: str, answer: Verb) -> None:
        """One request, whatever comes of it, gets one answer; our own bugs too, and they are reported."""
        try:
            request = _checked(codec.decode_as(Request, message.body))
            async with asyncio.timeout(names.REQUEST_DEADLINE_S):
                data = codec.encode(await answer(request))
            if len(data) > ANSWER_BYTES_MAX:
                msg = f"the answer has {len(data)} bytes, at most {ANSWER_BYTES_MAX} can be sent; ask for less"
                raise TooLargeError(msg)
            reply = Reply(data=msgspec.Raw(data))
        except TimeoutError:
            text = f"{self._service}.{verb}: no answer within {names.REQUEST_DEADLINE_S} s"
            reply = Reply(error=Failure(code="timeout", message=text, retryable=True))
        except HeadraceError as error:
            reply = Reply(error=error.failure())
        except Exception as error:
            text = f"{self._service}.{verb} failed: {type(error).__name__}"
            await self._respond(message, Reply(error=Failure(code="internal", message=text)))
            raise
        await self._respond(message, reply)

    async def _respond(self, message: BusMessage, reply: Reply) -> None:
        self.answered, self.refused = self.answered + 1, self.refused + (reply.error is not None)
        try:
            await message.respond(codec.encode(reply))
        except UnavailableError as error:  # the caller has its own deadline and asks again with the same id
            log.warning("api.answer_lost", extra={"service": self._service, "why": str(error)})


def _checked(request: Request) -> Request:
    """The request; its tenant becomes part of subjects, so it must be a token."""
    if not ids.TENANT_RE.fullmatch(request.tenant):
        msg = f"tenant {request.tenant[:80]!r} must match {ids.TENANT_RE.pattern}"
        raise MalformedMessageError(msg)
    if not 1 <= len(request.id) <= ID_CHARS_MAX:
        msg = f"a request id has 1 to {ID_CHARS_MAX} characters"
        raise MalformedMessageError(msg)
    return request
