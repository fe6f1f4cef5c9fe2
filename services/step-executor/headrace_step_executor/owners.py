"""Asking the owner of a partition whether orders are still current: many orders, one request."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from headrace.contracts import codec, ids, names, subjects
from headrace.contracts.errors import MalformedMessageError, UnavailableError
from headrace.contracts.live import CurrentAnswer, CurrentAsk
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Bus
from headrace_step_executor.decide import Received

log = logging.getLogger("headrace.executor")

GATHER_S: Final = 0.005
"""Orders that come within this time travel in one request."""
ASKED_MAX: Final = 256
"""Orders in one request, about 50 kB; the scheduler answers no more than a thousand."""
Spawn = Callable[[Coroutine[Any, Any, None], str], object]


@dataclass(slots=True)
class _Question:
    order: tuple[str, str, int, int, str]
    answer: "asyncio.Future[bool | None]"


class Owners:
    """Answers `is_current`. Requests run as spawned work; each ends within REQUEST_DEADLINE_S."""

    def __init__(self, bus: Bus, clock: Clock, spawn: Spawn) -> None:
        self._bus, self._clock, self._spawn = bus, clock, spawn
        self._waiting: dict[int, list[_Question]] = {}
        self.requests = 0

    async def is_current(self, received: Received) -> bool | None:
        """What the owner says; None when nobody answered, which means *ask again later*, never *yes*."""
        order, run = received.order, received.message.runid
        part = ids.partition_of(run)
        question = _Question(
            (run, order.path, order.attempt, order.offer, order.decision),
            asyncio.get_running_loop().create_future(),
        )
        waiting = self._waiting.setdefault(part, [])
        waiting.append(question)
        if len(waiting) == 1:
            self._spawn(self._gather(part), f"owners.{part:02d}")
        elif len(waiting) >= ASKED_MAX:
            self._spawn(self._ask(part, self._waiting.pop(part)), f"owners.{part:02d}")
        try:
            async with asyncio.timeout(GATHER_S + 2 * names.REQUEST_DEADLINE_S):
                return await question.answer
        except TimeoutError:
            return None

    async def _gather(self, part: int) -> None:
        await self._clock.sleep(GATHER_S)
        questions = self._waiting.pop(part, None)
        if questions:
            await self._ask(part, questions)

    async def _ask(self, part: int, questions: list[_Question]) -> None:
        self.requests += 1
        ask = CurrentAsk(orders=tuple(question.order for question in questions))
        answers: tuple[bool | None, ...] = (None,) * len(questions)
        try:
            body = await self._bus.request(
                subjects.order_current(part), codec.encode(ask), timeout_s=names.REQUEST_DEADLINE_S
            )
            current = codec.decode_as(CurrentAnswer, body).current
            if len(current) == len(questions):
                answers = current
            else:
                log.error("owner.answer_malformed", extra={"asked": len(questions), "answered": len(current)})
        except UnavailableError as error:
            log.info("owner.silent", extra={"part": part, "orders": len(questions), "why": str(error)})
        except MalformedMessageError as error:
            log.error("owner.answer_malformed", extra={"part": part, "why": str(error)})
        for question, answer in zip(questions, answers, strict=True):
            if not question.answer.done():
                question.answer.set_result(answer)
