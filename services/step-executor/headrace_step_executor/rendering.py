"""Where a rendering runs: small ones here, those that read files in a thread, large ones in a worker process.

A worker is killed when the attempt that it works for ends first, by timeout or cancellation: nothing goes on
working for nobody.
"""

import asyncio
import contextlib
import os
import signal
import sys
from concurrent.futures import Executor
from typing import Final

import msgspec

from headrace.contracts import names
from headrace.contracts.codec import decode_as, encode_value
from headrace.contracts.envelope import ItemResult, Value
from headrace.contracts.errors import AttemptError, HeadraceError
from headrace.contracts.events import Order
from headrace.runtime.blobs import BlobCache
from headrace.runtime.values import COMPOSED, item_refs, joined
from headrace_step_executor.render import Bound, Rendered, RenderJob, render
from headrace_step_executor.render_worker import LENGTH
from headrace_step_executor.secrets import Secrets
from headrace_step_executor.tools.beneath import Workspace

HERE_BYTES_MAX: Final = 128 * 1024
"""Decoding, evaluating and encoding this much takes about a millisecond."""
KILL_WAIT_S: Final = 5.0
JOB_BYTES_MAX: Final = 4 * names.VALUE_BYTES_MAX
"""What the bindings of one step may hold together; a worker needs several times that."""


class Rendering:
    """Renders orders. `close` ends the idle workers."""

    def __init__(
        self, blobs: BlobCache, threads: Executor, *, workers_max: int, secrets: Secrets | None = None
    ) -> None:
        self._blobs, self._threads = blobs, threads
        self.secrets = Secrets(None, tenant="") if secrets is None else secrets
        self._slots = asyncio.Semaphore(workers_max)
        self._idle: list[asyncio.subprocess.Process] = []
        self._elements: tuple[str, list[msgspec.Raw]] = ("", [])
        self.workers_started = 0

    async def render(self, order: Order, tenant: str, workspace: Workspace) -> Rendered:
        """The rendered input of an order with template and bindings; failures are data.

        Raises:
            HeadraceError: a value behind a reference, or a secret, cannot be had.
        """
        assert isinstance(order.template, msgspec.Raw)
        bindings = [await self._bound(name, value, tenant) for name, value in order.bindings.items()]
        if order.secrets:
            loop = asyncio.get_running_loop()
            taken = await loop.run_in_executor(self._threads, self.secrets.take, tenant, order.secrets)
            bindings.append(Bound(name="secrets", data=encode_value(taken)))
        job = RenderJob(
            template=bytes(order.template),
            bindings=tuple(bindings),
            home="" if workspace.home is None else str(workspace.home),
            read_roots=tuple(map(str, workspace.read_roots)),
        )
        _bounded(job.size)
        if job.size > HERE_BYTES_MAX:
            return await self._in_worker(job)
        if b"file" in job.template:
            return await asyncio.get_running_loop().run_in_executor(self._threads, render, job)
        return render(job)

    async def _bound(self, name: str, value: Value, tenant: str) -> Bound:
        data = await self.bytes_of(value, tenant)
        if value.form not in COMPOSED:
            return Bound(name=name, data=data)
        if b'"ref"' not in data:  # nothing to fetch: whoever renders it decodes it
            return Bound(name=name, data=data, form=value.form)
        results = decode_as(list[ItemResult], data)
        stored = {ref: await self._blobs.get(tenant, ref) for ref in item_refs(results)}
        return Bound(name=name, data=data, form=value.form, stored=stored)

    async def bytes_of(self, value: Value, tenant: str) -> bytes:
        """The JSON bytes of a value, of one element where it names one. Raises HeadraceError."""
        if isinstance(value.json, msgspec.Raw):
            return bytes(value.json)
        if value.parts:
            _bounded(value.size)
            return joined([await self._blobs.get(tenant, part.ref) for part in value.parts])
        data = await self._blobs.get(tenant, value.ref)
        if value.index < 0:
            return data
        key = f"{tenant}/{value.ref}"
        if self._elements[0] != key:
            # The items of one long list come one after the other: split it once, not a hundred thousand
            # times.
            self._elements = (key, decode_as(list[msgspec.Raw], data))
        elements = self._elements[1]
        if value.index >= len(elements):
            message = f"the list {value.ref} has {len(elements)} elements; element {value.index} was asked for"
            msg = "expr_eval"
            raise AttemptError(msg, message, retryable=False)
        return bytes(elements[value.index])

    async def _in_worker(self, job: RenderJob) -> Rendered:
        async with self._slots:
            worker = self._idle.pop() if self._idle else await self._start()
            try:
                answer = await _ask(worker, msgspec.msgpack.encode(job))
            except BaseException:
                await _kill(worker)
                raise
            self._idle.append(worker)
        return msgspec.msgpack.decode(answer, type=Rendered)

    async def _start(self) -> asyncio.subprocess.Process:
        self.workers_started += 1
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headrace_step_executor.render_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    async def close(self) -> None:
        """End the idle workers; those at work end with their attempts."""
        while self._idle:
            await _kill(self._idle.pop())


def _bounded(size: int) -> None:
    if size > JOB_BYTES_MAX:
        message = f"the step reads {size} bytes; at most {JOB_BYTES_MAX} together"
        msg = "too_large"
        raise AttemptError(msg, message, retryable=False)


async def _ask(worker: asyncio.subprocess.Process, job: bytes) -> bytes:
    """The answer's bytes. The attempt's deadline is the caller's.

    Raises:
        AttemptError: `render_crashed`, when the worker died over it.
    """
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(LENGTH.pack(len(job)) + job)
        await worker.stdin.drain()
        (size,) = LENGTH.unpack(await worker.stdout.readexactly(LENGTH.size))
        return await worker.stdout.readexactly(size)
    except (OSError, asyncio.IncompleteReadError) as error:
        message = "the worker process died over this expression, probably for want of memory"
        msg = "render_crashed"
        raise AttemptError(msg, message, retryable=True) from error


async def _kill(worker: asyncio.subprocess.Process) -> None:
    """Kill the worker's whole group and wait until it is gone."""
    if worker.returncode is None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.killpg(worker.pid, signal.SIGKILL)
    try:
        async with asyncio.timeout(KILL_WAIT_S):
            await worker.wait()
    except TimeoutError as error:
        message = f"render worker {worker.pid} survives SIGKILL"
        raise HeadraceError(message) from error
