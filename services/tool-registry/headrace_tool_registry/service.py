"""The shell: fold of HR_TOOLS, requests answered from it, writes through the checked append."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from headrace.contracts import codec, names, subjects
from headrace.contracts.errors import ConflictError, NotFoundError, RetryableError, UnknownOutcomeError
from headrace.contracts.events import StoredMessage, ToolChanged, ToolDisabled, ToolName, ToolRegistered, ToolSpec
from headrace.contracts.ids import token
from headrace.contracts.live import Empty, Request, StateHash, ToolList, ToolQuery
from headrace.runtime.api import Api
from headrace.runtime.clock import Clock, rfc3339
from headrace.runtime.entropy import Entropy
from headrace.runtime.eventlog import Broker, Stored
from headrace.runtime.presence import Condition, Presence
from headrace.runtime.projection import Projection
from headrace.runtime.supervisor import Supervisor
from headrace.runtime.transact import Loaded, Scope, transact
from headrace_tool_registry import decide
from headrace_tool_registry.config import Config
from headrace_tool_registry.state import EMPTY, Catalogue, catalogue_hash, enabled, evolve, find, waiting

log = logging.getLogger("headrace.tool_registry")

Decide = Callable[[Catalogue, decide.Origin], ToolRegistered | ToolDisabled | ToolChanged | None]
RETRY_S: Final = 0.5
FOLD_WITHIN_S: Final = 3.0
"""How long a request may wait for the fold; less than its own deadline, so that the caller hears why."""


class ToolRegistry:
    """Service `tool-registry`. Replicas are alike: any of them may answer anything."""

    name: Final = "tool-registry"

    def __init__(
        self,
        broker: Broker,
        supervisor: Supervisor,
        *,
        clock: Clock,
        entropy: Entropy,
        instance: str,
        config: Config,
        builtin: Sequence[ToolSpec],
    ) -> None:
        self._broker, self._supervisor, self._clock, self._config = broker, supervisor, clock, config
        self._builtin = tuple(builtin)
        self._published = False
        self._source = f"/{self.name}/{instance}"
        self.state = EMPTY
        self.fold = Projection(
            broker,
            stream=subjects.TOOLS,
            filters=(subjects.TOOLS_ALL,),
            clock=clock,
            apply=self._apply,
            reset=self._reset,
        )
        self._presence = Presence(
            broker,
            clock=clock,
            entropy=entropy,
            service=self.name,
            instance=instance,
            condition=lambda: Condition(ready=self.caught_up and self.ready),
        )
        verbs = {
            "register": self._register,
            "disable": self._disable,
            "approve": self._approve,
            "get": self._get,
            "list": self._list,
            "hash": self._hash,
        }
        self._api = Api(broker, supervisor, service=self.name, verbs=verbs)

    @property
    def caught_up(self) -> bool:
        """See harness.Service."""
        return self.fold.caught_up

    @property
    def ready(self) -> bool:
        """The built-in tools are in the catalogue."""
        return self._published

    async def start(self) -> None:
        """See harness.Service."""
        self._supervisor.start(f"{self.name}.fold", self.fold.run)
        self._supervisor.start(f"{self.name}.builtin", self._publish_builtin, "transient")
        self._supervisor.start(f"{self.name}.presence", self._presence.run)
        await self._api.start()

    async def drain(self) -> None:
        """See harness.Service."""
        await self._presence.leave()
        await self._api.stop()

    async def stop(self) -> None:
        """See harness.Service."""
        await self._api.stop()

    def _apply(self, stored: Stored, message: StoredMessage) -> None:
        self.state = evolve(self.state, message)

    def _reset(self) -> None:
        self.state = EMPTY

    async def _publish_builtin(self) -> None:
        """Put the built-in tools into the catalogue, however long the broker is away. Doing it again adds
        nothing; what was disabled, or registered otherwise by another release, stays as it is."""
        for spec in self._builtin:
            await self._publish_one(spec)
        self._published = True

    async def _publish_one(self, spec: ToolSpec) -> None:
        def choose(state: Catalogue, origin: decide.Origin) -> ToolRegistered | ToolChanged | None:
            return decide.register(state, spec, origin=origin)

        while True:
            try:
                return await self._write(self._config.tenant, spec.tool, choose)
            except ConflictError as error:
                log.warning("builtin.left_as_it_is", extra={"tool": spec.tool, "why": str(error)})
                return None
            except (RetryableError, UnknownOutcomeError) as error:
                log.warning("builtin.not_yet", extra={"tool": spec.tool, "why": str(error)})
                await self._clock.sleep(RETRY_S)

    async def _register(self, request: Request) -> ToolSpec:
        spec = codec.decode_as(ToolSpec, bytes(request.data))
        await self._write(
            request.tenant, spec.tool, lambda state, origin: decide.register(state, spec, origin=origin), request.id
        )
        if find(self.state, request.tenant, spec.tool, spec.version) is None:
            msg = (
                f"{spec.tool} is described otherwise than was approved: off until `headrace tools approve {spec.tool}`"
            )
            raise ConflictError(msg)
        return spec

    async def _approve(self, request: Request) -> ToolSpec:
        name = codec.decode_as(ToolName, bytes(request.data))
        await self._write(
            request.tenant, name.tool, lambda state, origin: decide.approve(state, name, origin=origin), request.id
        )
        found = find(self.state, request.tenant, name.tool, name.version)
        if found is None:
            msg = f"the tool {name.tool[:80]!r} was changed again meanwhile"
            raise ConflictError(msg)
        return found

    async def _disable(self, request: Request) -> ToolName:
        name = codec.decode_as(ToolName, bytes(request.data))
        await self._write(
            request.tenant, name.tool, lambda state, origin: decide.disable(state, name, origin=origin), request.id
        )
        return name

    async def _get(self, request: Request) -> ToolSpec:
        query = codec.decode_as(ToolQuery, bytes(request.data))
        await self._folded()
        found = find(self.state, request.tenant, query.tool, query.version)
        if found is None:
            version = f" in version {query.version!r}" if query.version else ""
            msg = f"no enabled tool {query.tool!r}{version}"
            raise NotFoundError(msg)
        return found

    async def _list(self, request: Request) -> ToolList:
        codec.decode_as(Empty, bytes(request.data))
        await self._folded()
        specs = enabled(self.state, request.tenant)
        return ToolList(tools=specs, hash=catalogue_hash(specs), waiting=waiting(self.state, request.tenant))

    async def _hash(self, request: Request) -> StateHash:
        await self._folded()
        digest = catalogue_hash(enabled(self.state, request.tenant))
        return StateHash(hash=digest, position={self.fold.stream: self.fold.seq})

    async def _folded(self) -> None:
        """A half-read catalogue answers nothing: "not found" would be a lie."""
        await self.fold.wait_caught_up(within_s=FOLD_WITHIN_S)

    async def _write(self, tenant: str, tool: str, choose: Decide, causation: str = "") -> None:
        """Append what `choose` finds missing, and wait until the fold shows it."""
        subject = subjects.tool(tenant, token(tool))

        async def load() -> Loaded[Catalogue]:
            last = await self._broker.last(subjects.TOOLS, subject)
            seq = 0 if last is None else last.seq
            await self._folded()
            await self.fold.reach(seq, within_s=FOLD_WITHIN_S)
            return Loaded(self.state, seq)

        def decided(loaded: Loaded[Catalogue]) -> ToolRegistered | ToolDisabled | ToolChanged | None:
            origin = decide.Origin(
                tenant=tenant,
                source=self._source,
                time=rfc3339(self._clock.now_ms()),
                seq=loaded.seq,
                causationid=causation,
            )
            return choose(loaded.state, origin)

        seq = await transact(self._broker, Scope(subjects.TOOLS, subject), load=load, decide=decided, clock=self._clock)
        await self.fold.reach(seq, within_s=names.REQUEST_DEADLINE_S)
