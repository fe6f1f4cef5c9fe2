"""`/livez /readyz /startupz /metrics` of one process, on an address of its own.

Liveness looks at the event loop alone: if it asked the broker, a broker outage would restart the fleet.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.contracts.errors import ConfigError
from headrace.runtime.supervisor import Supervisor

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BACKLOG: Final = 128


class Vitals(Protocol):
    """What the probes ask."""

    @property
    def live(self) -> bool:
        """The event loop turns."""
        ...

    @property
    def started(self) -> bool:
        """What must exist exists and the fold has caught up."""
        ...

    @property
    def ready(self) -> bool:
        """It may be given work."""
        ...

    loop_lag_s: float
    """How late the loop's heartbeat came last."""

    def describe(self) -> dict[str, Any]:
        """Why, for people."""
        ...


def health_app(vitals: Vitals, supervisor: Supervisor) -> Starlette:
    """The web application: 200 when true, 503 when not, the reasons as JSON either way."""
    registry = _registry(vitals, supervisor)

    def answer(claim: Callable[[], bool]) -> Callable[[Request], Any]:
        async def endpoint(_: Request) -> Response:
            good = claim()
            body = json.dumps({"ok": good} | vitals.describe())
            return Response(body, status_code=200 if good else 503, media_type="application/json")

        return endpoint

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=METRICS_TYPE)

    return Starlette(
        routes=[
            Route("/livez", answer(lambda: vitals.live)),
            Route("/readyz", answer(lambda: vitals.ready)),
            Route("/startupz", answer(lambda: vitals.started)),
            Route("/metrics", metrics),
        ]
    )


def _registry(vitals: Vitals, supervisor: Supervisor) -> CollectorRegistry:
    class Vital:
        """Read when scraped, so nothing is counted twice."""

        def collect(self) -> list[GaugeMetricFamily]:
            """See prometheus_client.registry.Collector."""
            crashes = GaugeMetricFamily("headrace_task_crashes", "Failures of tasks", labels=["task"])
            for task, count in supervisor.crashes.items():
                crashes.add_metric([task], count)
            return [
                GaugeMetricFamily("headrace_ready", "1 while ready", value=float(vitals.ready)),
                GaugeMetricFamily("headrace_loop_lag_seconds", "Lateness of the loop", value=vitals.loop_lag_s),
                GaugeMetricFamily("headrace_tasks", "Living spawned tasks", value=supervisor.spawned),
                crashes,
            ]

    registry = CollectorRegistry()
    registry.register(Vital())
    return registry


class _Server(uvicorn.Server):
    """uvicorn without signal handlers: the harness has its own, and its server must outlive the first
    SIGTERM."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_http(app: Starlette, *, host: str, port: int) -> None:
    """Serve for ever; a supervised child. Cancelling closes the socket.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        backlog=BACKLOG,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    try:
        socket = config.bind_socket()
    except SystemExit:
        msg = f"cannot listen on {host}:{port}; is the port taken? (HEADRACE_METRICS_PORT, HEADRACE_HTTP_PORT)"
        raise ConfigError(msg) from None
    server = _Server(config)
    try:
        await server.serve(sockets=[socket])
    finally:
        for listener in getattr(server, "servers", ()):
            listener.close()
        socket.close()
