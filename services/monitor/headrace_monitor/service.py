"""The shell: projects decisions and beats, answers from the projections, raises alerts. Stops no run by
being down."""

import logging
from itertools import islice
from typing import Final

from headrace.contracts import codec, subjects
from headrace.contracts.commands import NameRun
from headrace.contracts.errors import (
    DataError,
    MalformedMessageError,
    NotFoundError,
    RetryableError,
    UnknownOutcomeError,
)
from headrace.contracts.events import AlertCleared, AlertRaised, RunDecided, StoredMessage
from headrace.contracts.live import Beat, ListRuns, Request, RunList, RunRow, ServiceList, StateHash
from headrace.runtime.api import Api
from headrace.runtime.clock import Clock, rfc3339
from headrace.runtime.entropy import Entropy
from headrace.runtime.eventlog import Broker, BusMessage, Stored, Subscription
from headrace.runtime.presence import Condition, Presence
from headrace.runtime.projection import Projection
from headrace.runtime.supervisor import Supervisor
from headrace_monitor import decide
from headrace_monitor.config import Config
from headrace_monitor.health import Presences, fallen_silent, forget, hear, service_rows
from headrace_monitor.state import Board, board_hash, evolve, newest, row

log = logging.getLogger("headrace.monitor")

LIST_MAX: Final = 1_000
"""Rows of one answer: a row is under 1 KB, an answer under 1 MB."""
WATCH_EVERY_S: Final = 1.0
ALERTS_WAITING_MAX: Final = 1_000
"""Alerts kept while the broker is away; the oldest are dropped first, since they are about the least
present."""
FOLD_WITHIN_S: Final = 3.0


class Monitor:
    """Service `monitor`. Everything it knows can be thrown away and read again."""

    name: Final = "monitor"

    def __init__(
        self,
        broker: Broker,
        supervisor: Supervisor,
        *,
        clock: Clock,
        entropy: Entropy,
        instance: str,
        config: Config,
    ) -> None:
        self._broker, self._supervisor, self._clock, self._config = broker, supervisor, clock, config
        self._source = f"/{self.name}/{instance}"
        self.boards = {stream: Board() for stream in subjects.runs_streams(config.run_streams)}
        self.presences = Presences()
        self._alerts: list[tuple[str, AlertRaised | AlertCleared]] = []
        self._beats: Subscription | None = None
        self.folds = tuple(self._projection(stream) for stream in self.boards)
        self._presence = Presence(
            broker,
            clock=clock,
            entropy=entropy,
            service=self.name,
            instance=instance,
            condition=lambda: Condition(ready=self.caught_up),
        )
        verbs = {"runs": self._runs, "run": self._run, "services": self._services, "hash": self._hash}
        self._api = Api(broker, supervisor, service=self.name, verbs=verbs)

    def _projection(self, stream: str) -> Projection:
        def apply(_: Stored, message: StoredMessage) -> None:
            if isinstance(message, RunDecided):
                evolve(self.boards[stream], message)

        def reset() -> None:
            rows_max = max(1, self._config.runs_max // self._config.run_streams)
            self.boards[stream] = Board(runs_max=rows_max)

        return Projection(
            self._broker,
            stream=stream,
            filters=(subjects.DECISIONS_ALL,),
            clock=self._clock,
            apply=apply,
            reset=reset,
        )

    @property
    def caught_up(self) -> bool:
        """See harness.Service."""
        return all(fold.caught_up for fold in self.folds)

    @property
    def ready(self) -> bool:
        """See harness.Service."""
        return True

    @property
    def position(self) -> dict[str, int]:
        """Stream → sequence of the last decision folded."""
        return {fold.stream: fold.seq for fold in self.folds}

    async def start(self) -> None:
        """See harness.Service."""
        for fold in self.folds:
            self._supervisor.start(f"{self.name}.fold.{fold.stream}", fold.run)
        self._supervisor.start(f"{self.name}.presence", self._presence.run)
        self._supervisor.start(f"{self.name}.watch", self._watch)
        self._beats = await self._broker.subscribe(subjects.PRESENCE_ALL, self._hear)
        await self._api.start()

    async def drain(self) -> None:
        """See harness.Service."""
        await self._presence.leave()
        await self._api.stop()

    async def stop(self) -> None:
        """See harness.Service."""
        await self._api.stop()
        if self._beats is not None:
            await self._beats.stop()

    async def _hear(self, message: BusMessage) -> None:
        try:
            beat = codec.decode_as(Beat, message.body)
        except MalformedMessageError as error:
            log.warning("presence.malformed", extra={"subject": message.subject, "why": str(error)})
            return
        was_silent = hear(self.presences, beat, now_s=self._clock.monotonic_s())
        if was_silent is not None:
            self._queue(decide.silent_over(was_silent.beat, **self._origin()))

    async def _watch(self) -> None:
        """Look for silence once a second, and store the alerts that are due."""
        since_s = self._broker.connected_since_s
        while True:
            if self._broker.connected and since_s == self._broker.connected_since_s:
                self._look_for_silence()
            else:  # we did not hear anybody while the connection was away: silence counts from the reconnect
                since_s = self._broker.connected_since_s
                for process in self.presences.processes.values():
                    process.heard_s = self._clock.monotonic_s()
            await self._store_alerts()
            await self._clock.sleep(WATCH_EVERY_S)

    def _look_for_silence(self) -> None:
        now_s = self._clock.monotonic_s()
        for process in fallen_silent(self.presences, now_s=now_s, silent_s=self._config.silent_s):
            process.silent = True
            self._queue(decide.silent_alert(process.beat, **self._origin()))
        for process in forget(self.presences, now_s=now_s):
            self._queue(decide.silent_over(process.beat, **self._origin()))

    def _origin(self) -> dict[str, str]:
        return {
            "tenant": self._config.tenant,
            "source": self._source,
            "time": rfc3339(self._clock.now_ms()),
        }

    def _queue(self, alert: AlertRaised | AlertCleared) -> None:
        self._alerts.append((subjects.alert(alert.data.rule), alert))
        del self._alerts[:-ALERTS_WAITING_MAX]

    async def _store_alerts(self) -> None:
        while self._alerts:
            subject, alert = self._alerts[0]
            try:
                await self._broker.append(subject, codec.encode(alert), msg_id=alert.id)
            except (RetryableError, UnknownOutcomeError) as error:
                log.warning("alert.not_stored", extra={"rule": alert.data.rule, "why": str(error)})
                return  # tried again in a second; its id makes a second copy the same alert
            log.warning("alert.stored", extra={"rule": alert.data.rule, "about": alert.data.about})
            if self._alerts and self._alerts[0][1] is alert:
                del self._alerts[0]

    async def _folded(self) -> None:
        for fold in self.folds:
            await fold.wait_caught_up(within_s=FOLD_WITHIN_S)

    async def _runs(self, request: Request) -> RunList:
        ask = codec.decode_as(ListRuns, bytes(request.data))
        if not 1 <= ask.limit <= LIST_MAX:
            msg = f"limit {ask.limit}: 1 to {LIST_MAX}"
            raise DataError(msg)
        await self._folded()
        rows = [
            found
            for board in self.boards.values()
            for found in islice(
                newest(board, tenant=request.tenant, pipeline=ask.pipeline, status=ask.status), ask.limit
            )
        ]
        rows.sort(key=lambda found: found.created_ms, reverse=True)
        return RunList(runs=tuple(rows[: ask.limit]), position=self.position)

    async def _run(self, request: Request) -> RunRow:
        ask = codec.decode_as(NameRun, bytes(request.data))
        await self._folded()
        for board in self.boards.values():
            run = board.runs.get(ask.runid)
            if run is not None and run.tenant == request.tenant:
                return row(run)
        msg = f"no run {ask.runid[:128]!r} in the list; an old one may be in the log alone"
        raise NotFoundError(msg)

    async def _services(self, request: Request) -> ServiceList:
        return ServiceList(
            services=service_rows(self.presences, now_s=self._clock.monotonic_s(), silent_s=self._config.silent_s)
        )

    async def _hash(self, request: Request) -> StateHash:
        await self._folded()
        return StateHash(hash="-".join(board_hash(board) for board in self.boards.values()), position=self.position)
