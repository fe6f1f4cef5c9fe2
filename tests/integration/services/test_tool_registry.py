"""The tool registry over a real nats-server."""

import asyncio

import msgspec
import pytest
from tests.conftest import Connect, until
from tests.integration.services.conftest import Start

from headrace.contracts.events import ToolName, ToolSpec
from headrace.contracts.live import Empty, StateHash, ToolList, ToolQuery
from headrace.pipeline.builtin_tools import builtin_tools
from headrace.runtime.api import ServiceError, call
from headrace.runtime.eventlog import Broker
from headrace_tool_registry.config import Config
from headrace_tool_registry.service import ToolRegistry
from headrace_tool_registry.state import catalogue_hash

SPEC = ToolSpec(tool="crm.find", version="1.0.0", description="find", args={"type": "object"})


async def ask(broker: Broker, verb: str, data: object, answer: type, request_id: str = "r1"):
    return await call(broker, "tool-registry", verb, data, answer, tenant="default", request_id=request_id)


async def test_built_in_tools_are_in_the_catalogue_once_it_is_ready(streams: Broker, start: Start) -> None:
    """Nobody has to register what ships with the engine, and a second replica adds nothing to the log."""
    await start(ToolRegistry, config=Config(), builtin=builtin_tools())
    written = (await streams.position("HR_TOOLS")).last_seq
    await start(ToolRegistry, config=Config(), builtin=builtin_tools())

    tools = await ask(streams, "list", Empty(), ToolList)

    assert [spec.tool for spec in tools.tools] == [spec.tool for spec in builtin_tools()]
    assert tools.hash == catalogue_hash(reversed(builtin_tools()))
    assert (await streams.position("HR_TOOLS")).last_seq == written


async def test_registering_the_same_again_is_a_no_op_and_another_schema_a_conflict(
    streams: Broker, start: Start
) -> None:
    """A version never changes its meaning: a name clash is an error, not last-wins."""
    await start(ToolRegistry, config=Config(), builtin=())
    await ask(streams, "register", SPEC, ToolSpec, "r1")

    again = await ask(streams, "register", SPEC, ToolSpec, "r2")
    other = ToolSpec(tool="crm.find", version="1.0.0", description="find", args={"type": "string"})
    with pytest.raises(ServiceError, match="another specification") as refused:
        await ask(streams, "register", other, ToolSpec, "r3")

    assert again == SPEC
    assert refused.value.failure().code == "conflict"
    assert (await streams.position("HR_TOOLS")).last_seq == 1


async def test_a_race_for_one_version_has_one_winner(streams: Broker, start: Start, connect_broker: Connect) -> None:
    """Two replicas, two schemas, one name and version: one is registered, everybody else hears of the
    conflict."""
    for name in ("a", "b"):
        await start(ToolRegistry, await connect_broker(name), config=Config(), builtin=())
    specs = [ToolSpec(tool="race", version="1", description=f"variant {index % 2}", args={}) for index in range(20)]

    answers = await asyncio.gather(
        *(ask(streams, "register", spec, ToolSpec, f"r{index}") for index, spec in enumerate(specs)),
        return_exceptions=True,
    )

    won = {answer.description for answer in answers if isinstance(answer, ToolSpec)}
    lost = [answer for answer in answers if not isinstance(answer, ToolSpec)]
    assert len(won) == 1
    assert [error.failure().code for error in lost] == ["conflict"] * 10
    assert (await streams.position("HR_TOOLS")).last_seq == 1


async def test_a_disabled_version_is_found_no_more_and_the_next_newest_is(streams: Broker, start: Start) -> None:
    """Without a version the newest that is enabled answers; 1.10 is newer than 1.9."""
    await start(ToolRegistry, config=Config(), builtin=())
    for version in ("1.9.0", "1.10.0"):
        spec = ToolSpec(tool="crm.find", version=version, description="find", args={})
        await ask(streams, "register", spec, ToolSpec, version)
    newest = await ask(streams, "get", ToolQuery(tool="crm.find"), ToolSpec)

    await ask(streams, "disable", ToolName(tool="crm.find", version="1.10.0"), ToolName)
    then = await ask(streams, "get", ToolQuery(tool="crm.find"), ToolSpec)

    assert (newest.version, then.version) == ("1.10.0", "1.9.0")
    with pytest.raises(ServiceError) as missing:
        await ask(streams, "get", ToolQuery(tool="crm.find", version="1.10.0"), ToolSpec)
    assert missing.value.failure().code == "not_found"


async def test_what_is_no_tool_is_refused_with_every_reason(streams: Broker, start: Start) -> None:
    """Nothing is written for a refused registration."""
    await start(ToolRegistry, config=Config(), builtin=())
    bad = ToolSpec(tool="Crm Find", version="?", description="", args={"type": "nonsense"}, effect="magic")

    with pytest.raises(ServiceError) as refused:
        await ask(streams, "register", bad, ToolSpec)

    text = refused.value.failure().message
    assert all(part in text for part in ("'Crm Find'", "'?'", "'magic'", "args is no JSON Schema")), text
    assert (await streams.position("HR_TOOLS")).last_seq == 0


async def test_input_53_a_schema_is_never_fetched_and_can_be_used(streams: Broker, start: Start) -> None:
    """Neither `$schema` nor `$ref` makes the registry connect anywhere, and what no executor could use is refused."""
    await start(ToolRegistry, config=Config(), builtin=())
    asked: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1))
        writer.close()

    listening = await asyncio.start_server(hear, "127.0.0.1", 0)
    async with listening:
        place = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/schema"
        named = ToolSpec(tool="crm.find", version="1.0.0", description="find", args={"$schema": place})
        await ask(streams, "register", named, ToolSpec)
        refused = []
        for schema in ({"$ref": place}, {"$ref": "#/nowhere"}, {"pattern": "("}, {"type": "nonsense"}):
            bad = ToolSpec(tool="crm.find", version="2.0.0", description="find", args=schema)
            with pytest.raises(ServiceError) as raised:
                await ask(streams, "register", bad, ToolSpec)
            refused.append(raised.value.failure())

    assert [failure.code for failure in refused] == ["data_invalid"] * 4, refused
    assert all("args is no JSON Schema" in failure.message for failure in refused), refused
    assert asked == []
    assert (await streams.position("HR_TOOLS")).last_seq == 1


@pytest.mark.parametrize(
    "endpoint",
    ["nats:$JS.API.STREAM.DELETE.HR_RUNS_0", "nats:hr.cmd.default.run-start", "nats:_INBOX.x", "nats:a.*", "nats:a b",
     "nats:", "nats:.a", "http://x", ""],
)  # fmt: skip
async def test_a_tool_cannot_borrow_the_executors_rights(streams: Broker, start: Start, endpoint: str) -> None:
    """Executors publish to the endpoint with credentials of their own: the engine's and the broker's subjects are
    nobody's tool."""
    await start(ToolRegistry, config=Config(), builtin=())
    bad = ToolSpec(tool="crm.find", version="1.0.0", description="find", args={}, endpoint=endpoint)

    with pytest.raises(ServiceError, match="endpoint"):
        await ask(streams, "register", bad, ToolSpec)

    assert (await streams.position("HR_TOOLS")).last_seq == 0


async def test_a_built_in_tool_that_was_disabled_stays_so_and_holds_nobody_up(streams: Broker, start: Start) -> None:
    """What an operator has disabled, or an earlier release described otherwise, does not keep the registry down."""
    first = await start(ToolRegistry, config=Config(), builtin=builtin_tools())
    await ask(streams, "disable", ToolName(tool="fs.read", version="1.0.0"), ToolName)
    await first.abandon()
    changed = [msgspec.structs.replace(spec, description="said otherwise") for spec in builtin_tools()]

    hosted = await start(ToolRegistry, config=Config(), builtin=changed)
    await until(lambda: hosted.ready)
    tools = (await ask(streams, "list", Empty(), ToolList)).tools

    assert [spec.tool for spec in tools] == [spec.tool for spec in builtin_tools() if spec.tool != "fs.read"]
    assert "said otherwise" not in {spec.description for spec in tools}


async def test_otp_s2_the_catalogue_is_identical_within_two_seconds_of_a_restart(streams: Broker, start: Start) -> None:
    """Nobody registers again: the catalogue is the fold of its events."""
    first = await start(ToolRegistry, config=Config(), builtin=builtin_tools())
    await ask(streams, "register", SPEC, ToolSpec)
    before = await ask(streams, "hash", Empty(), StateHash)
    await first.abandon()

    began_s = asyncio.get_running_loop().time()
    await start(ToolRegistry, config=Config(), builtin=())
    after = await ask(streams, "hash", Empty(), StateHash)

    assert after == before
    assert asyncio.get_running_loop().time() - began_s < 2.0
