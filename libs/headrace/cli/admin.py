"""`admin migrate`: make the streams and durables that must exist, or say how they differ."""

from collections.abc import Sequence
from pathlib import Path

from headrace.cli.connection import connected
from headrace.cli.inspect import nothing_left
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import UsageError, emit, say
from headrace.contracts import names
from headrace.runtime.streams import consumer_specs, migrate, stream_specs


def migrate_command(data_dir: Path | None, *, replicas: int, caps: Sequence[str], as_json: bool) -> int:
    """Idempotent; exit code 78 with the difference where something exists with another configuration."""
    limits = dict(_cap(text) for text in caps)

    async def work() -> int:
        async with connected(data_dir) as link:
            run_streams = link.settings.run_streams
            await migrate(link.broker, run_streams=run_streams, replicas=replicas, caps=limits)
            streams = [spec.name for spec in stream_specs(run_streams=run_streams, replicas=replicas)]
            durables = [f"{spec.stream}/{spec.durable}" for spec in consumer_specs(limits, run_streams=run_streams)]
            if as_json:
                emit({"event": "migrated", "url": link.url, "streams": streams, "consumers": durables})
            else:
                say(f"{len(streams)} streams and {len(durables)} durables are as they must be at {link.url}")
            return names.EXIT_OK

    return run_interruptible(work(), detached=nothing_left)


def _cap(text: str) -> tuple[str, int]:
    queue, _, number = text.partition("=")
    if not queue or not number.isdigit() or int(number) < 1:
        msg = f"--cap {text[:60]}: expected queue=number"
        raise UsageError(msg)
    return queue, int(number)
