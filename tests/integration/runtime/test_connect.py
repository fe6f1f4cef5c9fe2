"""Row 57 of the bad inputs: the broker is down, refuses, differs, or has no JetStream."""

import asyncio
from pathlib import Path

import pytest

from headrace.contracts.errors import ConfigError, DeniedError, UnavailableError
from headrace.local.nats_server import NatsServer, free_port
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import StreamSpec
from headrace.runtime.jetstream import JetStreamBroker, connect
from headrace.runtime.streams import migrate

USERS = """
authorization {
  users: [
    {user: admin, password: right}
    {user: reader, password: right, permissions: {
      publish: ["$JS.API.>", "log.allowed"], subscribe: ["_INBOX.>"]
    }}
  ]
}
"""


async def test_input_57_down_lists_the_attempts(tmp_path: Path) -> None:
    """After the deadline, with exit code 69."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(UnavailableError, match=r"(?s)within 1 s:\n.*attempts: ConnectionRefusedError") as raised:
        await connect(f"nats://user:secret@127.0.0.1:{free_port()}", name="t", clock=SystemClock(), deadline_s=1.0)
    assert 0.9 < loop.time() - began_s < 3.0
    assert raised.value.exit_code == 69
    assert "secret" not in str(raised.value)


async def test_input_57_a_broker_that_comes_up_in_time_is_connected(tmp_path: Path) -> None:
    """Starting order does not matter."""
    server = NatsServer(tmp_path, clock=SystemClock(), port=free_port())
    connecting = asyncio.create_task(connect(server.url, name="t", clock=SystemClock(), deadline_s=10.0))
    await asyncio.sleep(0.3)
    await server.start()
    broker = await connecting
    assert broker.connected
    await broker.close()
    await server.stop()


@pytest.mark.parametrize("user", ["admin:wrong", "nobody:right", ""])
async def test_input_57_wrong_credentials_are_denied_at_once(tmp_path: Path, user: str) -> None:
    """Exit code 77, and the password is not printed."""
    server = NatsServer(tmp_path, clock=SystemClock(), extra=USERS)
    await server.start()
    url = server.url.replace("//", f"//{user}@") if user else server.url
    async with asyncio.timeout(3.0):
        with pytest.raises(DeniedError) as raised:
            await connect(url, name="t", clock=SystemClock(), deadline_s=20.0)
    assert raised.value.exit_code == 77
    assert "wrong" not in str(raised.value)
    await server.stop()


async def test_input_57_credentials_that_cannot_be_read(tmp_path: Path) -> None:
    """A configuration error that names the reason."""
    with pytest.raises(ConfigError, match="nowhere") as raised:
        await connect(
            "nats://127.0.0.1:1",
            name="t",
            creds=str(tmp_path / "nowhere.creds"),
            clock=SystemClock(),
            deadline_s=2.0,
        )
    assert raised.value.exit_code == 78


async def test_input_57_jetstream_disabled_says_how_to_enable_it(tmp_path: Path) -> None:
    """Exit code 78, without waiting for the deadline."""
    server = NatsServer(tmp_path, clock=SystemClock(), jetstream=False)
    await server.start()
    async with asyncio.timeout(3.0):
        with pytest.raises(ConfigError, match="JetStream is disabled") as raised:
            await connect(server.url, name="t", clock=SystemClock(), deadline_s=20.0)
    assert raised.value.exit_code == 78
    await server.stop()


async def test_input_57_a_stream_of_another_configuration_prints_the_difference(broker: JetStreamBroker) -> None:
    """Exit code 78, and nothing on the server is changed."""
    await broker.ensure_stream(StreamSpec("HR_RUNS_0", ("hr.evt.>",), max_age_s=600))
    with pytest.raises(ConfigError, match=r"(?s)HR_RUNS_0.*max_age: the server has 600000000000") as raised:
        await migrate(broker)
    assert raised.value.exit_code == 78
    await broker.ensure_stream(StreamSpec("HR_RUNS_0", ("hr.evt.>",), max_age_s=600))


UNSAFE = (
    {"allow_rollup_hdrs": True},
    {"deny_purge": True},
    {"persist_mode": "async"},
    {"storage": "memory"},
    {"no_ack": True},
)


@pytest.mark.parametrize("unsafe", UNSAFE, ids=lambda unsafe: next(iter(unsafe)))
async def test_input_57_a_stream_that_would_lose_or_rewrite_events_is_refused(
    broker: JetStreamBroker, unsafe: dict[str, object]
) -> None:
    """Also in what our specification does not mention."""
    config = {
        "name": "LOG",
        "subjects": ["log.>"],
        "storage": "file",
        "deny_delete": True,
        "allow_direct": True,
        **unsafe,
    }
    await broker._link.api("STREAM.CREATE.LOG", config)
    with pytest.raises(ConfigError, match=next(iter(unsafe))):
        await broker.ensure_stream(StreamSpec("LOG", ("log.>",)))


async def test_migrating_again_and_from_many_at_once_changes_nothing(broker: JetStreamBroker) -> None:
    """Local mode and several schedulers may all do it."""
    await asyncio.gather(*(migrate(broker, caps={"llm": 8}) for _ in range(20)))
    await migrate(broker, caps={"llm": 8})
    assert (await broker.consumer_state("HR_RUNS_0", "EXEC-llm")).pending == 0
    with pytest.raises(ConfigError, match=r"(?s)EXEC-llm.*max_ack_pending: the server has 8, it must be 9"):
        await migrate(broker, caps={"llm": 9})


async def test_what_the_user_may_not_do_is_denied_at_once(tmp_path: Path) -> None:
    """Instead of an unknown outcome after ten seconds."""
    server = NatsServer(tmp_path, clock=SystemClock(), extra=USERS)
    await server.start()
    admin = await connect(server.url.replace("//", "//admin:right@"), name="a", clock=SystemClock())
    reader = await connect(server.url.replace("//", "//reader:right@"), name="r", clock=SystemClock())
    await admin.ensure_stream(StreamSpec("LOG", ("log.>",)))
    async with asyncio.timeout(3.0):
        assert (await reader.append("log.allowed", b"")).seq == 1
        with pytest.raises(DeniedError):
            await reader.append("log.Other", b"")
        with pytest.raises(DeniedError):
            await reader.request("hr.api.x.y", b"", timeout_s=5.0)
    assert (await reader.append("log.allowed", b"")).seq == 2
    await reader.close()
    await admin.close()
    await server.stop()
