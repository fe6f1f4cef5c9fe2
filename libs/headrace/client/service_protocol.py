"""The NATS service protocol (ADR-32): `nats micro list`, `info`, `stats` and `ping` find whoever answers here.

The client library has one as well; it handles the requests of an endpoint one after the other, so that one slow tool
call would hold up all the others.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace.runtime.clock import Clock, rfc3339
from headrace.runtime.eventlog import Bus, BusMessage, Subscription

VERBS: Final = ("PING", "INFO", "STATS")
PROTOCOL: Final = "io.nats.micro.v1"


@dataclass(slots=True)
class Endpoint:
    """A subject that is answered, and how often it was. Times are nanoseconds."""

    name: str
    subject: str
    queue: str
    metadata: dict[str, str]
    requests: int = 0
    errors: int = 0
    last_error: str = ""
    time_ns: int = 0

    def count(self, *, took_s: float, error: str) -> None:
        """One request was answered; `error` is empty where it went well."""
        self.requests += 1
        self.time_ns += round(took_s * 1e9)
        if error:
            self.errors += 1
            self.last_error = error

    def info(self) -> dict[str, Any]:
        """As INFO has it."""
        return {"name": self.name, "subject": self.subject, "queue_group": self.queue, "metadata": self.metadata}

    def stats(self) -> dict[str, Any]:
        """As STATS has it."""
        return {
            "name": self.name,
            "subject": self.subject,
            "queue_group": self.queue,
            "num_requests": self.requests,
            "num_errors": self.errors,
            "last_error": self.last_error,
            "processing_time": self.time_ns,
            "average_processing_time": self.time_ns // self.requests if self.requests else 0,
        }


class Discovery:
    """Answers the protocol's questions for one process."""

    def __init__(self, bus: Bus, *, name: str, instance: str, description: str, endpoints: Sequence[Endpoint]) -> None:
        self._bus, self._name, self._instance = bus, name, instance
        self._description, self._endpoints = description, endpoints
        self._started = ""
        self._subscriptions: list[Subscription] = []

    async def start(self, clock: Clock) -> None:
        """Be found from now on."""
        self._started = rfc3339(clock.now_ms())
        for verb in VERBS:
            for who in ("", f".{self._name}", f".{self._name}.{self._instance}"):
                self._subscriptions.append(await self._bus.subscribe(f"$SRV.{verb}{who}", self._answer))

    async def stop(self) -> None:
        """Be found no more. Idempotent."""
        for subscription in self._subscriptions:
            await subscription.stop()
        self._subscriptions.clear()

    async def _answer(self, message: BusMessage) -> None:
        verb = message.subject.split(".")[1]
        said: dict[str, Any] = {
            "type": f"{PROTOCOL}.{verb.lower()}_response",
            "name": self._name,
            "id": self._instance,
            "version": "1.0.0",
            "metadata": {"io.headrace": "worker"},
        }
        match verb:
            case "INFO":
                said |= {"description": self._description, "endpoints": [one.info() for one in self._endpoints]}
            case "STATS":
                said |= {"started": self._started, "endpoints": [one.stats() for one in self._endpoints]}
        await message.respond(json.dumps(said).encode())
