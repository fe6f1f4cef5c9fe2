"""Registered definitions: the fold of HR_DEFINITIONS. A start by name gets the newest."""

from typing import Final

from headrace.contracts import events as ev
from headrace.contracts import subjects
from headrace.contracts.codec import decode
from headrace.contracts.errors import CorruptError, NotFoundError
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Broker, Stored
from headrace.runtime.projection import Projection

DEFINITIONS_ALL: Final = "hr.def.>"


class Definitions:
    """What is registered, by tenant and pipeline. `fold.run` is a supervised child."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self.newest: dict[str, dict[str, str]] = {}
        """tenant → pipeline → newest digest. Shared with the partitions, which start children by name."""
        self._triggers: dict[tuple[str, str], tuple[ev.TriggerSpec, ...]] = {}
        self.fold = Projection(
            broker,
            stream=subjects.DEFINITIONS,
            filters=(DEFINITIONS_ALL,),
            clock=clock,
            apply=self._apply,
            reset=self._reset,
        )

    def _reset(self) -> None:
        self.newest.clear()
        self._triggers.clear()

    def _apply(self, _: Stored, message: ev.StoredMessage) -> None:
        if isinstance(message, ev.DefinitionRegistered):
            self.newest.setdefault(message.tenant, {})[message.pipeline] = message.data.digest
            self._triggers[(message.tenant, message.pipeline)] = message.data.triggers

    async def digest_of(self, tenant: str, name: str) -> str:
        """The digest that `name` or `name@digest` means.

        A name that the fold does not know yet is looked up at the stream's leader: another scheduler may have
        registered it a moment ago.

        Raises:
            NotFoundError: nothing of that name is registered.
        """
        pipeline, _, digest = name.partition("@")
        if digest:
            return digest
        known = self.newest.get(tenant, {}).get(pipeline)
        if known is not None:
            return known
        stored = await self._broker.last(subjects.DEFINITIONS, subjects.definition(tenant, pipeline))
        if stored is None:
            message = f"no pipeline `{pipeline}` is registered for tenant `{tenant}`; submit its file first"
            raise NotFoundError(message)
        registered = decode(stored.body)
        if not isinstance(registered, ev.DefinitionRegistered):
            message = f"{stored.subject} holds a {type(registered).__name__}"
            raise CorruptError(message)
        return registered.data.digest

    def listening(self, tenant: str, event: str) -> list[tuple[str, str, ev.TriggerSpec]]:
        """(pipeline, digest, trigger) of armed triggers for an event, in order of name."""
        return [
            (pipeline, self.newest[tenant][pipeline], trigger)
            for (owner, pipeline), triggers in sorted(self._triggers.items(), key=_key)
            if owner == tenant
            for trigger in triggers
            if trigger.event == event
        ]


def _key(entry: tuple[tuple[str, str], object]) -> tuple[str, str]:
    return entry[0]
