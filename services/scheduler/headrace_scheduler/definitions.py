"""Registered definitions: the fold of HR_DEFINITIONS. A start by name gets the newest."""

from dataclasses import dataclass
from typing import Final

from headrace.contracts import events as ev
from headrace.contracts import names, pseudo, subjects
from headrace.contracts.codec import decode
from headrace.contracts.errors import CorruptError, NotFoundError
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Broker, Stored
from headrace.runtime.projection import Projection

DEFINITIONS_ALL: Final = "hr.def.>"


@dataclass(slots=True, frozen=True)
class Armed:
    """The triggers of a pipeline, as the last deployment, or the end of all, left them."""

    seq: int
    digest: str = ""
    at_ms: int = 0
    triggers: tuple[ev.TriggerSpec, ...] = ()
    crons: tuple[pseudo.CronSpec, ...] = ()


class Definitions:
    """What is registered, by tenant and pipeline. `fold.run` is a supervised child."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self.newest: dict[str, dict[str, str]] = {}
        """tenant → pipeline → newest digest. Shared with the partitions, which start children by name."""
        self.armed: dict[tuple[str, str], Armed] = {}
        """(tenant, pipeline) → what was deployed last. A registration that arms nothing leaves it as it is."""
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
        self.armed.clear()

    def _apply(self, stored: Stored, message: ev.StoredMessage) -> None:
        match message:
            case ev.DefinitionRegistered(tenant=tenant, pipeline=pipeline, data=data):
                self.newest.setdefault(tenant, {})[pipeline] = data.digest
                if data.armed:
                    self.armed[(tenant, pipeline)] = Armed(
                        stored.seq, data.digest, data.armed_ms, data.triggers, data.crons
                    )
            case ev.DefinitionRetired(tenant=tenant, pipeline=pipeline):
                self.newest.get(tenant, {}).pop(pipeline, None)
                self.armed[(tenant, pipeline)] = Armed(stored.seq)
            case _:
                pass  # of no concern here

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
        if isinstance(registered, ev.DefinitionRetired):
            message = f"pipeline `{pipeline}` of tenant `{tenant}` was retired; deploy it again"
            raise NotFoundError(message)
        if not isinstance(registered, ev.DefinitionRegistered):
            message = f"{stored.subject} holds a {type(registered).__name__}"
            raise CorruptError(message)
        return registered.data.digest

    def listening(self, tenant: str, event: str) -> list[tuple[str, str, ev.TriggerSpec]]:
        """(pipeline, digest, trigger) of armed triggers for an event, in order of name."""
        return [
            (pipeline, armed.digest, trigger)
            for (owner, pipeline), armed in sorted(self.armed.items(), key=_key)
            if owner == tenant
            for trigger in armed.triggers
            if trigger.event == event
        ]

    async def catch_up(self, tenant: str, pipeline: str) -> None:
        """Return when everything that is registered under the name by now is folded.

        Raises:
            UnavailableError: not in time.
        """
        stored = await self._broker.last(subjects.DEFINITIONS, subjects.definition(tenant, pipeline))
        if stored is not None:
            await self.fold.reach(stored.seq, within_s=names.REQUEST_DEADLINE_S)

    async def catch_up_with_all(self) -> None:
        """Return when everything that is registered by now is folded: what was armed before an event hears it.

        Raises:
            UnavailableError: not in time.
        """
        position = await self._broker.position(subjects.DEFINITIONS)
        await self.fold.reach(position.last_seq, within_s=names.REQUEST_DEADLINE_S)


def _key(entry: tuple[tuple[str, str], object]) -> tuple[str, str]:
    return entry[0]
