"""Files of the workspace that a step keeps: matched after it succeeded, stored before its report."""

import asyncio
import functools
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, Final

from headrace.contracts import ids, names
from headrace.contracts.errors import AttemptError
from headrace.contracts.events import Artifact
from headrace.runtime import blobs
from headrace.runtime.eventlog import EventLog
from headrace_step_executor.decide import Received
from headrace_step_executor.secrets import Secrets
from headrace_step_executor.tools.beneath import Workspace
from headrace_step_executor.tools.call import ToolCall
from headrace_step_executor.tools.fs_read import matching

ARTIFACTS_MAX: Final = 1_000
"""Files kept by one step; each is a line of its report."""


async def collect(
    eventlog: EventLog, threads: Executor, received: Received, workspace: Workspace, secrets: Secrets
) -> tuple[Artifact, ...]:
    """The artifacts of an attempt, by path. A pattern that matches nothing keeps nothing.

    Raises:
        AttemptError: `artifacts_too_many`, `too_large`, `path_denied`, `secret_exposed`. HeadraceError: a file
        could not be stored.
    """
    order, message = received.order, received.message
    if not order.artifacts:
        return ()
    home = Workspace(workspace.home)
    loop = asyncio.get_running_loop()
    found: set[str] = set()
    for pattern in order.artifacts:
        call = _looking(received, home, threads, {"dir": "."})
        work = functools.partial(matching, call, pattern, hidden=False)
        try:
            found.update(await loop.run_in_executor(threads, work))
        finally:
            call.stop.set()
    if len(found) > ARTIFACTS_MAX:
        text = f"{len(found)} files match; a step keeps at most {ARTIFACTS_MAX}"
        msg = "artifacts_too_many"
        raise AttemptError(msg, text, retryable=False)
    kept = []
    for path in sorted(found):
        data = await loop.run_in_executor(threads, functools.partial(home.read, path, bytes_max=names.VALUE_BYTES_MAX))
        name = await loop.run_in_executor(threads, secrets.found_in, data)
        if name:
            msg = "secret_exposed"
            raise AttemptError(msg, f"{path}: the file holds the secret `{name}` and is not kept", retryable=False)
        ref = await blobs.put(eventlog, message.tenant, message.runid, data)
        kept.append(Artifact(path=path, ref=ref, size=len(data)))
    return tuple(kept)


def _looking(received: Received, home: Workspace, threads: Executor, args: Mapping[str, Any]) -> ToolCall:
    order, message = received.order, received.message
    return ToolCall(
        tool="artifacts",
        args=args,
        tenant=message.tenant,
        run=message.runid,
        path=order.path,
        attempt=order.attempt,
        key=ids.idempotency_key(message.runid, order.path),
        timeout_s=order.timeout_ms / 1000,
        workspace=home,
        threads=threads,
    )
