"""The broker dies, freezes and comes back: nothing acknowledged is lost, nothing refused is stored."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.conftest import Connect, until

from headrace.contracts.errors import CorruptError, HeadraceError, UnavailableError, UnknownOutcomeError
from headrace.local.nats_server import NatsServer
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import Appended, Consumer, ConsumerSpec, Delivery, StreamSpec
from headrace.runtime.jetstream import JetStreamBroker
from headrace.runtime.jetstream_link import open_link

LOG = StreamSpec("LOG", ("log.>",))
QUEUE = ConsumerSpec("LOG", "Q", ("log.>",), max_ack_pending=1000)
RECOVERY_S = 2.0


@pytest.fixture
async def log(broker: JetStreamBroker) -> JetStreamBroker:
    """A connection with a stream."""
    await broker.ensure_stream(LOG)
    return broker


@pytest.fixture
async def impatient(nats_server: NatsServer) -> AsyncIterator[JetStreamBroker]:
    """A connection whose appends are unknown after half a second."""
    clock = SystemClock()
    link = await open_link(nats_server.url, name="impatient", creds=None, clock=clock, deadline_s=5.0)
    broker = JetStreamBroker(link, publish_deadline_s=0.5)
    await broker.ensure_stream(LOG)
    yield broker
    await broker.close()


async def killed(server: NatsServer, broker: JetStreamBroker) -> None:
    """SIGKILL, and the client has noticed."""
    server.kill()
    await until(lambda: not broker.connected)


async def back(server: NatsServer, broker: JetStreamBroker) -> None:
    """Started again, and the client has noticed."""
    await server.start()
    await until(lambda: broker.connected)


async def take(consumer: Consumer, count: int, *, within_s: float = 5.0) -> list[Delivery]:
    """The next deliveries."""
    taken: list[Delivery] = []
    async with asyncio.timeout(within_s):
        while len(taken) < count:
            taken += await consumer.batch(max_count=count - len(taken), wait_s=0.2)
    return taken


# --- publishing -------------------------------------------------------------------------------------------------------


async def test_what_is_published_while_disconnected_is_never_stored(
    log: JetStreamBroker, nats_server: NatsServer
) -> None:
    """It is refused at once; no buffer sends it after the reconnect."""
    await log.append("log.a", b"before")
    await killed(nats_server, log)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for _ in range(100):
        with pytest.raises(UnavailableError):
            await log.publish("log.a", b"ghost")
    assert loop.time() - began_s < 0.5
    await back(nats_server, log)
    assert (await log.append("log.a", b"after")).seq == 2
    assert [stored.body async for stored in log.read("LOG", [])] == [b"before", b"after"]


async def test_appends_in_flight_at_a_kill_are_known_or_unknown_at_once(
    log: JetStreamBroker, nats_server: NatsServer
) -> None:
    """Acknowledged ones are there afterwards; the others are there or not, and do not come later."""
    futures = [await log.publish("log.a", str(number).encode(), msg_id=f"m{number}") for number in range(2_000)]
    await until(lambda: any(future.done() for future in futures))
    nats_server.kill()
    async with asyncio.timeout(2.0):
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
    acknowledged = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Appended)]
    assert all(isinstance(outcome, Appended | UnknownOutcomeError) for outcome in outcomes)
    assert log.in_flight == 0
    await back(nats_server, log)
    stored = {one.headers["Nats-Msg-Id"] async for one in log.read("LOG", [])}
    assert stored >= {f"m{index}" for index in acknowledged}
    last_seq = (await log.position("LOG")).last_seq
    assert (await log.append("log.b", b"")).seq == last_seq + 1
    for index in range(2_000):
        await log.publish("log.a", str(index).encode(), msg_id=f"m{index}")
    await until(lambda: log.in_flight == 0)
    assert len([one async for one in log.read("LOG", ["log.a"])]) == 2_000


async def test_a_frozen_broker_makes_an_append_unknown_and_may_store_it_later(
    impatient: JetStreamBroker, nats_server: NatsServer
) -> None:
    """Unknown is the truth: after the thaw it is stored, though its caller was told nothing."""
    nats_server.pause()
    with pytest.raises(UnknownOutcomeError):
        await impatient.append("log.a", b"late", msg_id="x")
    nats_server.resume()

    async def stored() -> bool:
        return await impatient.last("LOG", "log.a") is not None

    await until(stored)
    assert (await impatient.append("log.a", b"late", msg_id="x")).duplicate


async def test_cancelled_appends_leave_nothing_behind(log: JetStreamBroker) -> None:
    """They may be stored; the next ones work as ever."""
    tasks = [asyncio.create_task(log.append("log.a", b"x")) for _ in range(300)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    await until(lambda: log.in_flight == 0)
    last_seq = (await log.position("LOG")).last_seq
    assert (await log.append("log.a", b"y")).seq == last_seq + 1


async def test_more_appends_than_may_fly_wait_their_turn(log: JetStreamBroker) -> None:
    """In the order of the calls; one that gives up waiting loses only its own turn."""
    tasks = [asyncio.create_task(log.publish("log.a", str(number).encode())) for number in range(10_000)]
    await asyncio.sleep(0)
    assert log.in_flight <= 4096
    tasks[9_000].cancel()
    futures = [task.result() for task in (await asyncio.wait(tasks, timeout=20.0))[0] if not task.cancelled()]
    await asyncio.gather(*futures)
    bodies = [int(stored.body) async for stored in log.read("LOG", [])]
    assert bodies == [number for number in range(10_000) if number != 9_000]


# --- tails ------------------------------------------------------------------------------------------------------------


async def test_a_tail_has_no_gap_over_kills_of_the_broker(log: JetStreamBroker, nats_server: NatsServer) -> None:
    """Three kill -9 while it is written and read: every message once, in order."""
    tail = await log.tail("LOG", ["log.a", "log.b"], start_seq=1)
    seen: list[int] = []

    async def write() -> None:
        for number in range(3_000):
            while True:  # the id makes repeating safe
                try:
                    await log.append(f"log.{'abc'[number % 3]}", b"", msg_id=str(number))
                    break
                except (UnavailableError, UnknownOutcomeError):
                    await asyncio.sleep(0.02)

    async def read() -> None:
        while len(seen) < 2_000:
            seen.extend(stored.seq for stored in await tail.batch(max_count=100, wait_s=0.5))

    async def kill() -> None:
        for already in (100, 800, 1_500):
            await until(lambda already=already: len(seen) > already, within_s=15.0)  # type: ignore[misc]  # bound now
            nats_server.kill()
            await nats_server.start()

    async with asyncio.timeout(40.0), asyncio.TaskGroup() as group:
        group.create_task(write())
        group.create_task(read())
        group.create_task(kill())
    whole = [stored.seq async for stored in log.read("LOG", ["log.a", "log.b"])]
    assert seen == whole
    assert len(whole) == 2_000
    assert tail.rebuilds >= 3
    await tail.stop()


async def test_a_tail_outlives_its_consumer(log: JetStreamBroker) -> None:
    """Somebody deletes it on the server, in the middle."""
    tail = await log.tail("LOG", [], start_seq=1)
    for number in range(3):
        await log.append("log.a", str(number).encode())
        (stored,) = await tail.batch(max_count=1, wait_s=RECOVERY_S)
        assert stored.body == str(number).encode()
        await log._link.api(f"CONSUMER.DELETE.LOG.{tail._consumer}")
    await tail.stop()


async def test_a_tail_that_hears_nothing_asks_again(log: JetStreamBroker) -> None:
    """Its requests died and nobody said so."""
    tail = await log.tail("LOG", [], start_seq=1)
    assert tail._puller is not None
    log._link.forget(tail._puller._sid)
    await log.append("log.a", b"1")
    (stored,) = await tail.batch(max_count=1, wait_s=2 * RECOVERY_S)
    assert stored.body == b"1"
    await tail.stop()


async def test_a_log_shorter_than_what_was_read_from_it_is_corrupt(log: JetStreamBroker) -> None:
    """Acknowledged messages were lost: going on would hide it."""
    for _ in range(5):
        await log.append("log.a", b"")
    tail = await log.tail("LOG", [], start_seq=1)
    assert len(await tail.batch(max_count=5, wait_s=1.0)) == 5
    await log._link.api("STREAM.DELETE.LOG")
    await log.ensure_stream(LOG)
    await log.append("log.a", b"")
    with pytest.raises(CorruptError, match=r"ends at 1, but 5 was already read"):
        await tail.batch(max_count=1, wait_s=RECOVERY_S)
    await tail.stop()


async def test_readers_leave_nothing_on_the_server(log: JetStreamBroker) -> None:
    """No consumer stays behind a tail or a read, finished or left early."""
    await log.append("log.a", b"1")
    await log.append("log.a", b"2")
    tail = await log.tail("LOG", [], start_seq=1)
    await tail.stop()
    _ = [stored async for stored in log.read("LOG", [])]
    reading = log.read("LOG", [])
    await anext(reading)
    await reading.aclose()  # type: ignore[attr-defined]  # it is an async generator

    async def consumers() -> bool:
        return bool((await log._link.api("STREAM.INFO.LOG"))["state"]["consumer_count"] == 0)

    await until(consumers)


# --- work queues ------------------------------------------------------------------------------------------------------


async def test_readers_are_back_two_seconds_after_the_broker(
    log: JetStreamBroker, nats_server: NatsServer, connect_broker: Connect
) -> None:
    """A share of a work queue and a tail, idle when the broker died."""
    await log.ensure_consumer(QUEUE)
    consumer = await log.consume("LOG", "Q", in_flight_max=4)
    tail = await log.tail("LOG", [], start_seq=1)
    assert await tail.batch(max_count=1, wait_s=0.1) == []
    await killed(nats_server, log)
    await nats_server.start()
    writer = await connect_broker("writer")
    await writer.append("log.a", b"1")
    async with asyncio.timeout(RECOVERY_S):
        (delivery,) = await take(consumer, 1)
        assert [stored.body for stored in await tail.batch(max_count=1, wait_s=RECOVERY_S)] == [b"1"]
    await delivery.ack()
    await consumer.stop()
    await tail.stop()


async def test_a_share_never_holds_more_than_its_bound_over_kills(
    log: JetStreamBroker, nats_server: NatsServer
) -> None:
    """And all work is done at least once, with the acknowledgements that were lost repeated."""
    await log.ensure_consumer(ConsumerSpec("LOG", "Q", ("log.>",), ack_wait_s=1.0))
    for number in range(300):
        await log.publish("log.a", str(number).encode())
    await until(lambda: log.in_flight == 0)
    consumer = await log.consume("LOG", "Q", in_flight_max=8)
    done: set[bytes] = set()
    most = 0
    kills = [50, 150]
    async with asyncio.timeout(30.0):
        while len(done) < 300:
            if kills and len(done) > kills[0]:
                kills.pop(0)
                nats_server.kill()
                await nats_server.start()
            batch = await consumer.batch(max_count=5, wait_s=0.1)
            most = max(most, consumer.in_flight)
            for delivery in batch:
                done.add(delivery.stored.body)
                await delivery.ack()
    assert most <= 8
    await consumer.stop()


async def test_work_of_a_dead_connection_goes_to_another(log: JetStreamBroker, connect_broker: Connect) -> None:
    """After `ack_wait` what it held, at once what it had only asked for."""
    await log.ensure_consumer(ConsumerSpec("LOG", "Q", ("log.>",), ack_wait_s=1.0))
    for number in range(4):
        await log.append("log.a", str(number).encode())
    dying = await connect_broker("dying")
    holder = await dying.consume("LOG", "Q", in_flight_max=2)
    held = await take(holder, 2)
    await dying._link.nats.close()
    other = await log.consume("LOG", "Q", in_flight_max=10)
    assert {one.stored.body for one in await take(other, 2, within_s=0.5)} == {b"2", b"3"}
    again = await take(other, 2, within_s=3.0)
    assert {one.stored.body for one in again} == {one.stored.body for one in held}
    assert all(one.deliveries == 2 for one in again)
    await other.stop()


# --- the connection ---------------------------------------------------------------------------------------------------


async def test_requests_fail_at_once_when_the_connection_is_lost(log: JetStreamBroker, nats_server: NatsServer) -> None:
    """Nobody waits for a deadline that cannot be met."""
    nats_server.pause()
    asking = asyncio.create_task(log.position("LOG"))
    await asyncio.sleep(0.05)
    nats_server.kill()
    async with asyncio.timeout(1.0):
        with pytest.raises(UnavailableError):
            await asking
    with pytest.raises(HeadraceError):
        await log.position("LOG")


async def test_suspicion_starts_from_zero_after_a_reconnect(log: JetStreamBroker, nats_server: NatsServer) -> None:
    """`connected_since_s` moves with every reconnect."""
    before_s = log.connected_since_s
    await killed(nats_server, log)
    await back(nats_server, log)
    assert log.connected_since_s > before_s


@pytest.mark.slow
async def test_a_frozen_broker_is_given_up_in_time(log: JetStreamBroker, nats_server: NatsServer) -> None:
    """SIGSTOP: after two unanswered pings the connection counts as lost, and is back after the thaw."""
    nats_server.pause()
    await until(lambda: not log.connected, within_s=25.0)
    nats_server.resume()
    await until(lambda: log.connected, within_s=10.0)
    await log.append("log.a", b"")
