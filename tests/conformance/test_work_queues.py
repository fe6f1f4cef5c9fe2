"""What `WorkQueues`, `Bus` and `Admin` promise, for every broker."""

import asyncio

import pytest
from tests.conformance.conftest import ConnectAny
from tests.conftest import until

from headrace.contracts.errors import (
    ConfigError,
    ConsumerGoneError,
    NotFoundError,
    TerminalError,
    UnavailableError,
)
from headrace.runtime.eventlog import Broker, BusMessage, Consumer, ConsumerSpec, Delivery, StreamSpec

LOG = StreamSpec("LOG", ("log.>",))
QUEUE = ConsumerSpec("LOG", "Q", ("log.a.>",), ack_wait_s=30.0, max_ack_pending=100)


async def given_queue(broker: Broker, count: int, spec: ConsumerSpec = QUEUE) -> None:
    """A stream with `count` messages for the queue."""
    await broker.ensure_stream(LOG)
    await broker.ensure_consumer(spec)
    for number in range(count):
        await broker.append(f"log.a.{number}", str(number).encode())


async def take(consumer: Consumer, count: int, *, wait_s: float = 3.0) -> list[Delivery]:
    """The next deliveries."""
    taken: list[Delivery] = []
    while len(taken) < count:
        batch = await consumer.batch(max_count=count - len(taken), wait_s=wait_s)
        assert batch, f"only {[one.stored.body for one in taken]} within {wait_s} s"
        taken += batch
    return taken


async def test_each_message_is_delivered_and_acknowledged_once(broker: Broker) -> None:
    """Nothing is left after the last acknowledgement."""
    await given_queue(broker, 20)
    await broker.append("log.b", b"not for the queue")
    consumer = await broker.consume("LOG", "Q", in_flight_max=7)
    bodies = []
    for _ in range(20):
        (delivery,) = await take(consumer, 1)
        assert delivery.deliveries == 1
        bodies.append(delivery.stored.body)
        await delivery.ack()
    assert sorted(bodies, key=int) == [str(number).encode() for number in range(20)]
    assert await consumer.batch(max_count=1, wait_s=0.05) == []

    async def settled() -> bool:
        return await broker.consumer_state("LOG", "Q") == (20, 20, 0, 0)

    await until(settled)
    await consumer.stop()


async def test_a_share_never_holds_more_than_its_bound(broker: Broker) -> None:
    """Whatever batch is asked for; ending one makes room for one."""
    await given_queue(broker, 20)
    consumer = await broker.consume("LOG", "Q", in_flight_max=3)
    held = await take(consumer, 3)
    assert await consumer.batch(max_count=10, wait_s=0.2) == []
    assert (await broker.consumer_state("LOG", "Q")).ack_pending == 3
    await held.pop(0).ack()
    held += await take(consumer, 1)
    assert await consumer.batch(max_count=10, wait_s=0.1) == []
    await consumer.stop()


async def test_the_queue_never_has_more_out_than_its_cap(backend: ConnectAny) -> None:
    """All shares together."""
    first, second = await backend(), await backend()
    await given_queue(first, 10, ConsumerSpec("LOG", "Q", ("log.a.>",), max_ack_pending=4))
    shares = [await one.consume("LOG", "Q", in_flight_max=10) for one in (first, second)]
    held = [one for share in shares for one in await share.batch(max_count=10, wait_s=0.3)]
    assert len(held) == 4
    await held[0].ack()
    more = [one for share in shares for one in await share.batch(max_count=10, wait_s=0.3)]
    assert len(more) == 1
    for share in shares:
        await share.stop()


async def test_shares_get_different_messages(backend: ConnectAny) -> None:
    """Two that ask at once never hold the same one."""
    first, second = await backend(), await backend()
    await given_queue(first, 40)
    shares = [await one.consume("LOG", "Q", in_flight_max=10) for one in (first, second)]
    bodies: list[bytes] = []
    while len(bodies) < 40:
        for share in shares:
            for delivery in await share.batch(max_count=10, wait_s=0.1):
                bodies.append(delivery.stored.body)
                await delivery.ack()
    assert len(set(bodies)) == 40
    for share in shares:
        await share.stop()


async def test_what_is_handed_back_comes_again(broker: Broker) -> None:
    """At once, or after the delay; the count of deliveries rises."""
    await given_queue(broker, 1)
    consumer = await broker.consume("LOG", "Q", in_flight_max=1)
    (delivery,) = await take(consumer, 1)
    await delivery.nak()
    (delivery,) = await take(consumer, 1)
    assert delivery.deliveries == 2
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await delivery.nak(delay_s=0.4)
    (delivery,) = await take(consumer, 1)
    assert (delivery.deliveries, delivery.stored.body) == (3, b"0")
    assert 0.35 <= loop.time() - began_s < 2.0
    await delivery.ack()
    await consumer.stop()


async def test_silence_is_followed_by_redelivery_and_progress_defers_it(broker: Broker) -> None:
    """After `ack_wait`, which `in_progress` starts afresh."""
    await given_queue(broker, 1, ConsumerSpec("LOG", "Q", ("log.a.>",), ack_wait_s=0.5))
    consumer = await broker.consume("LOG", "Q", in_flight_max=2)
    (delivery,) = await take(consumer, 1)
    for _ in range(4):
        assert await consumer.batch(max_count=1, wait_s=0.25) == []
        await delivery.in_progress()
    (again,) = await take(consumer, 1)
    assert (again.stored.seq, again.deliveries) == (1, 2)
    await again.ack()
    await consumer.stop()


async def test_a_terminated_message_does_not_come_again(broker: Broker) -> None:
    """It counts as done."""
    await given_queue(broker, 1)
    consumer = await broker.consume("LOG", "Q", in_flight_max=1)
    (delivery,) = await take(consumer, 1)
    await delivery.term("poison\r\nin two lines")

    async def settled() -> bool:
        return (await broker.consumer_state("LOG", "Q")).ack_pending == 0

    await until(settled)
    assert await consumer.batch(max_count=1, wait_s=0.05) == []
    await consumer.stop()


async def test_ending_a_delivery_twice_is_our_mistake(broker: Broker) -> None:
    """It would free a place twice."""
    await given_queue(broker, 1)
    consumer = await broker.consume("LOG", "Q", in_flight_max=1)
    (delivery,) = await take(consumer, 1)
    await delivery.ack()
    with pytest.raises(AssertionError):
        await delivery.nak()
    await consumer.stop()


async def test_a_share_that_stops_fetching_hands_over_what_it_has(backend: ConnectAny) -> None:
    """And another gets everything else at once."""
    first, second = await backend(), await backend()
    await given_queue(first, 10)
    consumer = await first.consume("LOG", "Q", in_flight_max=4)
    (held,) = await take(consumer, 1)
    kept = await consumer.stop_fetching()
    assert len(kept) == 3
    assert await consumer.batch(max_count=10, wait_s=0.1) == []
    for delivery in kept:
        await delivery.nak()
    other = await second.consume("LOG", "Q", in_flight_max=10)
    assert len(await take(other, 9)) == 9
    await held.ack()
    await consumer.stop()
    await other.stop()


async def test_a_share_that_stops_gives_back_what_nobody_took(backend: ConnectAny) -> None:
    """Without waiting for `ack_wait`."""
    first, second = await backend(), await backend()
    await given_queue(first, 5)
    consumer = await first.consume("LOG", "Q", in_flight_max=5)

    async def all_out() -> bool:
        return (await first.consumer_state("LOG", "Q")).ack_pending == 5

    await until(all_out)
    await consumer.stop()
    other = await second.consume("LOG", "Q", in_flight_max=5)
    assert len(await take(other, 5)) == 5
    await other.stop()


async def test_acknowledged_work_leaves_a_work_queue_stream(broker: Broker) -> None:
    """The stream is empty afterwards, its last sequence stays."""
    await broker.ensure_stream(StreamSpec("WORK", ("work.>",), retention="workqueue"))
    await broker.ensure_consumer(ConsumerSpec("WORK", "ALL", ("work.>",)))
    await broker.append("work.a", b"1")
    consumer = await broker.consume("WORK", "ALL", in_flight_max=1)
    (delivery,) = await take(consumer, 1)
    assert await broker.position("WORK") == (1, 1)
    await delivery.ack()

    async def empty() -> bool:
        return await broker.position("WORK") == (2, 1)

    await until(empty)
    await consumer.stop()
    with pytest.raises(TerminalError):
        await broker.tail("WORK", [], start_seq=1)


async def test_a_durable_that_does_not_exist_is_gone(broker: Broker) -> None:
    """Also one that is removed while it is read."""
    await given_queue(broker, 0)
    with pytest.raises(ConsumerGoneError):
        await broker.consume("LOG", "NONE", in_flight_max=1)
    with pytest.raises(ConsumerGoneError):
        await broker.consumer_state("LOG", "NONE")
    with pytest.raises(NotFoundError):
        await broker.consume("NONE", "NONE", in_flight_max=1)
    consumer = await broker.consume("LOG", "Q", in_flight_max=1)
    await broker.delete_consumer("LOG", "Q")
    await broker.delete_consumer("LOG", "Q")

    async def read_until_gone() -> None:
        while True:
            await consumer.batch(max_count=1, wait_s=0.5)

    with pytest.raises(ConsumerGoneError):
        async with asyncio.timeout(10.0):
            await read_until_gone()
    await consumer.stop()


async def took_all_and_asks_no_more(broker: Broker, stream: str, durable: str, count: int) -> list[Delivery]:
    """Deliveries in the hands of somebody who will not end them."""
    consumer = await broker.consume(stream, durable, in_flight_max=count)
    taken = await take(consumer, count)
    assert await consumer.stop_fetching() == []
    return taken


@pytest.mark.parametrize(
    ("stream", "again"),
    [
        (
            StreamSpec("LOG", ("log.>",)),
            [b"1", b"2", b"3"],
        ),  # an ended one above the floor comes too: it is still there
        (StreamSpec("WORK", ("log.>",), retention="workqueue"), [b"1", b"3"]),
    ],
    ids=lambda one: one.retention if isinstance(one, StreamSpec) else "",
)
async def test_what_is_unended_is_delivered_again_on_request(
    backend: ConnectAny, stream: StreamSpec, again: list[bytes]
) -> None:
    """To whoever asks now, at once, well before ack_wait; an end by the old holder counts."""
    broker, dead = await backend(), await backend()
    await broker.ensure_stream(stream)
    await broker.ensure_consumer(ConsumerSpec(stream.name, "Q", ("log.>",), ack_wait_s=30.0))
    for number in range(4):
        await broker.append(f"log.{number}", str(number).encode())
    theirs = await took_all_and_asks_no_more(dead, stream.name, "Q", 4)
    await theirs[0].ack()
    await theirs[2].ack()

    async def unended() -> int:
        return (await broker.consumer_state(stream.name, "Q")).ack_pending

    async def two_are_left() -> bool:
        return await unended() == 2

    await until(two_are_left)
    mine = await broker.consume(stream.name, "Q", in_flight_max=10)  # asks before, and is served after
    assert await mine.batch(max_count=1, wait_s=0.05) == []

    await broker.redeliver(stream.name, "Q")

    taken = await take(mine, len(again))
    assert [delivery.stored.body for delivery in taken] == again
    assert {delivery.deliveries for delivery in taken} == {1}
    await theirs[3].ack()
    for delivery in taken[:-1]:
        await delivery.ack()

    async def none_are_left() -> bool:
        return await unended() == 0

    await until(none_are_left)


async def test_what_does_not_exist_is_not_delivered_again(broker: Broker) -> None:
    """As with everything that is asked of a durable."""
    await given_queue(broker, 0)
    with pytest.raises(ConsumerGoneError):
        await broker.redeliver("LOG", "NONE")


async def test_a_durable_that_was_removed_and_made_again_goes_on(broker: Broker) -> None:
    """For the share that noticed nothing."""
    await given_queue(broker, 0)
    consumer = await broker.consume("LOG", "Q", in_flight_max=2)
    await broker.delete_consumer("LOG", "Q")
    await broker.ensure_consumer(QUEUE)
    await broker.append("log.a.x", b"1")
    (delivery,) = await take(consumer, 1, wait_s=8.0)
    assert delivery.stored.body == b"1"
    await consumer.stop()


# --- administration ---------------------------------------------------------------------------------------------------


async def test_a_message_is_removed_where_the_stream_allows_it(broker: Broker) -> None:
    """Once; what is not there cannot be removed, and nothing happens."""
    await broker.ensure_stream(StreamSpec("CACHE", ("cache.>",), max_msgs_per_subject=1, deny_delete=False))
    first = await broker.append("cache.a", b"1")
    kept = await broker.append("cache.b", b"2")
    newer = await broker.append("cache.a", b"3")

    for seq in (first.seq, newer.seq, newer.seq, 1_000):
        await broker.remove("CACHE", seq)

    assert await broker.last("CACHE", "cache.a") is None
    assert (await broker.last("CACHE", "cache.>")).seq == kept.seq  # type: ignore[union-attr]
    await broker.ensure_stream(LOG)
    stays = await broker.append("log.a", b"1")
    with pytest.raises(UnavailableError):
        await broker.remove("LOG", stays.seq)


async def test_making_the_same_again_changes_nothing(backend: ConnectAny) -> None:
    """Also from twenty connections at once."""
    brokers = [await backend() for _ in range(20)]
    await asyncio.gather(*(broker.ensure_stream(LOG) for broker in brokers))
    await asyncio.gather(*(broker.ensure_consumer(QUEUE) for broker in brokers))
    await brokers[0].append("log.a.x", b"1")
    await brokers[1].ensure_stream(LOG)
    assert await brokers[1].position("LOG") == (1, 1)


async def test_another_configuration_is_refused_with_the_difference(broker: Broker) -> None:
    """Every differing field is named with both values."""
    await broker.ensure_stream(LOG)
    await broker.ensure_consumer(QUEUE)
    with pytest.raises(ConfigError, match=r"(?s)stream LOG.*max_bytes.*-1.*5000") as raised:
        await broker.ensure_stream(StreamSpec("LOG", ("log.>", "more.>"), max_bytes=5000))
    assert raised.value.exit_code == 78
    assert "more.>" in str(raised.value)
    with pytest.raises(ConfigError, match=r"(?s)consumer Q of LOG.*max_ack_pending.*100.*7"):
        await broker.ensure_consumer(ConsumerSpec("LOG", "Q", ("log.a.>",), max_ack_pending=7))


async def test_subjects_of_streams_and_of_work_queues_must_not_overlap(broker: Broker) -> None:
    """The server's own rules."""
    await broker.ensure_stream(StreamSpec("WORK", ("work.>",), retention="workqueue"))
    await broker.ensure_consumer(ConsumerSpec("WORK", "A", ("work.a.>",)))
    with pytest.raises(TerminalError):
        await broker.ensure_consumer(ConsumerSpec("WORK", "B", ("work.>",)))
    with pytest.raises(TerminalError):
        await broker.ensure_stream(StreamSpec("OTHER", ("work.b",)))
    with pytest.raises(NotFoundError):
        await broker.ensure_consumer(ConsumerSpec("NONE", "B", ()))


# --- the bus ----------------------------------------------------------------------------------------------------------


async def test_a_request_gets_its_answer(backend: ConnectAny) -> None:
    """From another connection; every asker its own."""
    asker, answerer = await backend(), await backend()

    async def double(message: BusMessage) -> None:
        await message.respond(message.body * 2)

    subscription = await answerer.subscribe("api.double", double)
    await _interest(asker, "api.double")
    answers = await asyncio.gather(
        *(asker.request("api.double", str(number).encode(), timeout_s=2.0) for number in range(50))
    )
    assert answers == [str(number).encode() * 2 for number in range(50)]
    await subscription.stop()
    await subscription.stop()


async def test_nobody_answers_at_once_and_silence_in_time(broker: Broker) -> None:
    """Both are `UnavailableError`."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(UnavailableError):
        await broker.request("api.none", b"", timeout_s=5.0)
    assert loop.time() - began_s < 1.0

    async def silent(message: BusMessage) -> None:
        """Hear and say nothing."""

    subscription = await broker.subscribe("api.silent", silent)
    with pytest.raises(UnavailableError):
        await broker.request("api.silent", b"", timeout_s=0.1)
    await subscription.stop()


async def test_everybody_hears_and_of_a_queue_one(backend: ConnectAny) -> None:
    """Handlers of one subscription run one after the other, in order."""
    first, second = await backend(), await backend()
    heard: dict[str, list[bytes]] = {"a": [], "b": [], "q1": [], "q2": []}
    running = 0

    def handler(name: str) -> object:
        async def on_message(message: BusMessage) -> None:
            nonlocal running
            if name == "a":
                running += 1
                assert running == 1
                await asyncio.sleep(0)
                running -= 1
            heard[name].append(message.body)

        return on_message

    await first.subscribe("live.*", handler("a"))  # type: ignore[arg-type]  # a coroutine function
    await second.subscribe("live.>", handler("b"))  # type: ignore[arg-type]  # a coroutine function
    await first.subscribe("live.x", handler("q1"), queue="q")  # type: ignore[arg-type]  # a coroutine function
    await second.subscribe("live.x", handler("q2"), queue="q")  # type: ignore[arg-type]  # a coroutine function
    for broker in (first, second):
        with pytest.raises(UnavailableError):
            await broker.request("nobody", b"", timeout_s=1.0)  # a round trip: the server knows the interest
    bodies = [str(number).encode() for number in range(100)]
    for body in bodies:
        await first.send("live.x", body)
    await until(lambda: len(heard["a"]) + len(heard["b"]) + len(heard["q1"]) + len(heard["q2"]) == 300)
    assert heard["a"] == heard["b"] == bodies
    assert sorted(heard["q1"] + heard["q2"], key=int) == bodies


async def test_a_handler_that_fails_does_not_end_the_subscription(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next message is handled."""
    heard: list[bytes] = []

    async def handle(message: BusMessage) -> None:
        if message.body == b"bad":
            raise ValueError(message.body)
        heard.append(message.body)

    subscription = await broker.subscribe("live.x", handle)
    await broker.send("live.x", b"bad")
    await broker.send("live.x", b"good")
    await until(lambda: heard == [b"good"])
    assert any(record.message == "bus.handler_failed" for record in caplog.records)
    assert subscription.backlog == 0
    await subscription.stop()


async def _interest(broker: Broker, subject: str) -> None:
    """Wait until somebody answers on a subject."""

    async def answered() -> bool:
        try:
            await broker.request(subject, b"", timeout_s=1.0)
        except UnavailableError:
            return False
        return True

    await until(answered)
