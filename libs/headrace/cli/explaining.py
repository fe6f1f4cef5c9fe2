"""`explain` and `diff`: what a run's history says about why, and where two runs part."""

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.cli.connection import Connection, connected
from headrace.cli.inspect import nothing_left
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import emit, say, table
from headrace.client.differences import Differences, Divergence, differences_json
from headrace.client.reasons import Reason
from headrace.contracts import names
from headrace.contracts.errors import RetryableError
from headrace.contracts.live import Empty, ServiceList
from headrace.runtime.api import call

SERVICES_WITHIN_S: Final = 2.0
"""A reason is told without the monitor too: then nobody knows which queues are served."""
HASH_CHARS: Final = 12
"""Of a hash, for people; `--json` has all of it."""


def explain_command(data_dir: Path | None, run: str, step: str, *, as_json: bool) -> int:
    """One line a reason, with the sequences of the events that prove it."""

    async def work() -> int:
        async with connected(data_dir) as link:
            for reason in await link.client.explain(run, step, served=await _served(link)):
                if as_json:
                    emit(msgspec.to_builtins(reason))
                else:
                    say(_line(reason, run))
            return names.EXIT_OK

    return run_interruptible(work(), detached=nothing_left)


async def _served(link: Connection) -> frozenset[str] | None:
    """Queues that living executors serve; None when the monitor does not answer."""
    tenant, request_id = link.settings.tenant, link.client.new_id()
    try:
        async with asyncio.timeout(SERVICES_WITHIN_S):
            found: ServiceList = await call(
                link.broker, "monitor", "services", Empty(), ServiceList, tenant=tenant, request_id=request_id
            )
    except (RetryableError, TimeoutError):
        return None
    return frozenset(queue for row in found.services for queue in row.queues)


def _line(reason: Reason, run: str) -> str:
    events = f"  (event{'s' * (len(reason.events) > 1)} {', '.join(map(str, reason.events))})" if reason.events else ""
    whose = f"{reason.run}: " if reason.run and reason.run != run and reason.code != "child" else ""
    return f"{whose}{reason.text}{events}"


def diff_command(data_dir: Path | None, run: str, other: str, *, as_json: bool) -> int:
    """The first divergent event of two runs, and a summary by step."""

    async def work() -> int:
        async with connected(data_dir) as link:
            found = await link.client.differences(run, other)
            if as_json:
                emit(differences_json(found))
            else:
                _show(found)
            return names.EXIT_OK

    return run_interruptible(work(), detached=nothing_left)


def _show(found: Differences) -> None:
    if found.first is None:
        say("no event differs in what it means")
    else:
        _show_divergence("first difference", found.first)
    if found.step is not None and found.step != found.first:
        _show_divergence("first of a step", found.step)
    rows = [("", field, _short(a), _short(b)) for field, (a, b) in found.run.items()]
    for step in found.steps:
        rows += [(step.path, field, _short(a), _short(b)) for field, (a, b) in step.fields.items()]
    if rows:
        say()
        table(("STEP", "WHAT", "FIRST", "SECOND"), rows)


def _show_divergence(title: str, one: Divergence) -> None:
    say(f"{title}: {f'`{one.path}`' if one.path else 'the run'}")
    for seq, told in ((one.a_seq, one.a), (one.b_seq, one.b)):
        if told is None:
            say("  –")
            continue
        fields = one.differs or tuple(name for name in told if name not in ("event", "path"))
        shown = "  ".join(f"{name}={_short(told[name])}" for name in fields if name in told)
        say(f"  event {seq}  {told['event']}  {shown}".rstrip())


def _short(value: Any) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    is_hash = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    return text[:HASH_CHARS] if is_hash else text
