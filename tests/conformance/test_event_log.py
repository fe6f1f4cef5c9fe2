"""What `EventLog` promises, for every broker."""

import asyncio

import pytest
from tests.conformance.conftest import ConnectAny
from tests.conftest import until

from headrace.contracts.errors import (
    AppendConflictError,
    DataError,
    NotFoundError,
    StorageFullError,
    TerminalError,
    UnavailableError,
)
from headrace.runtime.eventlog import Broker, Expected, StreamSpec, Tail

LOG = StreamSpec("LOG", ("log.>",))


async def given_log(broker: Broker, *subjects: str) -> None:
    """A stream with one message on each subject; bodies count from 1."""
    await broker.ensure_stream(LOG)
    for number, subject in enumerate(subjects, 1):
        await broker.append(subject, str(number).encode())


async def take(tail: Tail, count: int, *, wait_s: float = 2.0) -> list[bytes]:
    """The next bodies, whatever batches they come in."""
    bodies: list[bytes] = []
    while len(bodies) < count:
        batch = await tail.batch(max_count=count - len(bodies), wait_s=wait_s)
        assert batch, f"only {bodies} within {wait_s} s"
        bodies += [stored.body for stored in batch]
    return bodies


# --- appending --------------------------------------------------------------------------------------------------------


async def test_appends_of_one_stream_have_one_order(broker: Broker) -> None:
    """Sequences count from 1 over all subjects of a stream."""
    await broker.ensure_stream(LOG)
    assert [(await broker.append(f"log.{name}", b"")).seq for name in "abc"] == [1, 2, 3]


async def test_a_stored_message_has_subject_body_headers_and_the_brokers_time(broker: Broker) -> None:
    """What was sent is what is read, the id among the headers."""
    await broker.ensure_stream(LOG)
    await broker.append("log.a", b"\x00body", msg_id="id-1", headers={"Trace": "t-1"})
    stored = await broker.get("LOG", 1)
    assert stored is not None
    assert (stored.stream, stored.seq, stored.subject, stored.body) == ("LOG", 1, "log.a", b"\x00body")
    assert dict(stored.headers) == {"Trace": "t-1", "Nats-Msg-Id": "id-1"}
    assert stored.time_ms > 1_700_000_000_000


async def test_publishes_in_flight_keep_their_order(broker: Broker) -> None:
    """A hundred appends sent without waiting are stored in the order of the calls."""
    await broker.ensure_stream(LOG)
    futures = [await broker.publish("log.a", str(number).encode()) for number in range(100)]
    assert [(await future).seq for future in futures] == list(range(1, 101))


async def test_an_append_that_expects_what_is_there_is_stored(broker: Broker) -> None:
    """The expectation is about the last message that matches a filter, not about the stream."""
    await given_log(broker, "log.a.x", "log.b.x")
    appended = await broker.append("log.a.y", b"", expected=Expected(1, "log.a.>"))
    assert (appended.seq, appended.duplicate) == (3, False)


async def test_an_append_that_expects_nothing_creates_once(broker: Broker) -> None:
    """Of fifty that expect sequence 0 exactly one is stored."""
    await broker.ensure_stream(LOG)
    futures = [await broker.publish("log.a", b"", expected=Expected(0, "log.a")) for _ in range(50)]
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert sum(isinstance(outcome, AppendConflictError) for outcome in outcomes) == 49
    assert (await broker.position("LOG")).last_seq == 1


async def test_a_refused_append_changes_nothing(broker: Broker) -> None:
    """The error says what was expected and what is there."""
    await given_log(broker, "log.a")
    with pytest.raises(AppendConflictError, match=r"log\.a: expected last sequence 0.*: 1"):
        await broker.append("log.a", b"", expected=Expected(0, "log.a"))
    assert await broker.position("LOG") == (1, 1)


async def test_the_same_id_is_stored_once_whatever_subject_and_body(broker: Broker) -> None:
    """Deduplication is per stream and by id alone."""
    await broker.ensure_stream(LOG)
    first = await broker.append("log.a", b"1", msg_id="x")
    again = await broker.append("log.b", b"2", msg_id="x")
    assert (first.duplicate, again.duplicate, again.seq) == (False, True, first.seq)
    assert (await broker.position("LOG")).last_seq == 1


async def test_the_expectation_is_checked_before_the_id(broker: Broker) -> None:
    """On one node a retry after a lost acknowledgement is refused as a conflict, though it is stored."""
    await broker.ensure_stream(LOG)
    await broker.append("log.a", b"1", msg_id="x", expected=Expected(0, "log.a"))
    with pytest.raises(AppendConflictError):
        await broker.append("log.a", b"1", msg_id="x", expected=Expected(0, "log.a"))
    last = await broker.last("LOG", "log.a")
    assert last is not None
    assert last.headers["Nats-Msg-Id"] == "x"


async def test_an_id_is_forgotten_after_the_window(broker: Broker) -> None:
    """Then the log itself is the only memory."""
    await broker.ensure_stream(StreamSpec("LOG", ("log.>",), duplicate_window_s=0.1))
    await broker.append("log.a", b"1", msg_id="x")
    for _ in range(100):
        if not (await broker.append("log.a", b"1", msg_id="x")).duplicate:
            return
        await asyncio.sleep(0.02)
    pytest.fail("still a duplicate")


async def test_a_subject_that_no_stream_takes_is_unavailable(broker: Broker) -> None:
    """Nothing is stored, and the caller may try later."""
    await broker.ensure_stream(LOG)
    with pytest.raises(UnavailableError):
        await broker.append("other.a", b"")


@pytest.mark.parametrize("subject", ["", "a b", "a..b", ".a", "a.", "a\r\nPUB x"])
async def test_a_subject_that_is_none_is_refused(broker: Broker, subject: str) -> None:
    """Before anything is sent."""
    with pytest.raises(DataError):
        await broker.append(subject, b"")


async def test_headers_cannot_smuggle_lines(broker: Broker) -> None:
    """A line break in a value would write a header of its own."""
    with pytest.raises(DataError):
        await broker.append("log.a", b"", headers={"A": "x\r\nNats-Rollup: all"})
    for line_break in ("\n", "\r", "\r\n"):
        with pytest.raises(DataError):
            await broker.append("log.a", b"", msg_id=f"x{line_break}Nats-Rollup: all")
        with pytest.raises(DataError):
            await broker.append("log.a", b"", expected=Expected(0, f"log.a{line_break}Nats-Rollup: all"))


async def test_a_message_above_the_brokers_limit_is_refused_and_the_connection_lives(broker: Broker) -> None:
    """Headers count; a server would close the connection over it."""
    await broker.ensure_stream(LOG)
    with pytest.raises(DataError):
        await broker.append("log.a", b"x" * (1024 * 1024 - 10), msg_id="an id of some length")
    assert (await broker.append("log.a", b"x" * (1024 * 1024))).seq == 1


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_a_full_stream_refuses(broker: Broker) -> None:
    """An event log must refuse, not forget."""
    await broker.ensure_stream(StreamSpec("LOG", ("log.>",), max_bytes=10_000, discard_new=True))
    await broker.append("log.a", b"x" * 8_000)
    with pytest.raises(StorageFullError):
        await broker.append("log.a", b"x" * 8_000)
    assert await broker.position("LOG") == (1, 1)


async def test_one_message_a_subject_refuses_the_second(broker: Broker) -> None:
    """So that a second put of the same blob is a no-op."""
    spec = StreamSpec("LOG", ("log.>",), max_msgs_per_subject=1, discard_new_per_subject=True)
    await broker.ensure_stream(spec)
    await broker.append("log.a", b"1")
    with pytest.raises(StorageFullError):
        await broker.append("log.a", b"2")
    with pytest.raises(AppendConflictError):
        await broker.append("log.a", b"2", expected=Expected(0, "log.a"))
    await broker.append("log.b", b"2")


async def test_a_bucket_keeps_the_newest_of_each_key(broker: Broker) -> None:
    """And compares and sets by sequence."""
    await broker.ensure_stream(StreamSpec("KV_x", ("$KV.x.>",), max_msgs_per_subject=1, deny_delete=False))
    first = await broker.append("$KV.x.a", b"1", expected=Expected(0, "$KV.x.a"))
    await broker.append("$KV.x.a", b"2", expected=Expected(first.seq, "$KV.x.a"))
    with pytest.raises(AppendConflictError):
        await broker.append("$KV.x.a", b"3", expected=Expected(first.seq, "$KV.x.a"))
    assert await broker.get("KV_x", first.seq) is None
    assert await broker.position("KV_x") == (2, 2)


# --- looking ----------------------------------------------------------------------------------------------------------


async def test_last_is_the_newest_that_matches(broker: Broker) -> None:
    """Wildcards work; no match is None."""
    await given_log(broker, "log.a.x", "log.a.y", "log.b.x")
    for subject_filter, body in (
        ("log.a.>", b"2"), ("log.*.x", b"3"), ("log.a.x", b"1"), (">", b"3"), ("log.a", None), ("log.a.x.>", None)
    ):  # fmt: skip
        last = await broker.last("LOG", subject_filter)
        assert (last and last.body) == body, subject_filter


async def test_a_sequence_without_message_is_none(broker: Broker) -> None:
    """Whether it is before, after or zero."""
    await given_log(broker, "log.a")
    assert await broker.get("LOG", 0) is None
    assert await broker.get("LOG", 2) is None


async def test_the_position_of_an_empty_stream(broker: Broker) -> None:
    """Last is first - 1."""
    await broker.ensure_stream(LOG)
    assert await broker.position("LOG") == (1, 0)


async def test_a_missing_stream_is_not_found(broker: Broker) -> None:
    """For everything that names one."""
    for asking in (
        broker.position("NONE"), broker.last("NONE", ">"), broker.get("NONE", 1), broker.tail("NONE", [], start_seq=1)
    ):  # fmt: skip
        with pytest.raises(NotFoundError):
            await asking
    with pytest.raises(NotFoundError):
        _ = [stored async for stored in broker.read("NONE", [])]


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_read_gives_what_matches_now_and_ends(broker: Broker) -> None:
    """In order; filters and start are respected; later messages are not included."""
    await given_log(broker, "log.a", "log.b", "log.a", "log.c")
    assert [stored.body async for stored in broker.read("LOG", ["log.a", "log.c"])] == [b"1", b"3", b"4"]
    assert [stored.body async for stored in broker.read("LOG", ["log.a"], start_seq=2)] == [b"3"]
    assert [stored.body async for stored in broker.read("LOG", [], start_seq=5)] == []
    bodies = []
    async for stored in broker.read("LOG", []):
        bodies.append(stored.body)
        await broker.append("log.a", b"later")
    assert bodies == [b"1", b"2", b"3", b"4"]


async def test_read_can_be_left_early(broker: Broker) -> None:
    """And the next read begins at the beginning."""
    await given_log(broker, *["log.a"] * 10)
    async for stored in broker.read("LOG", []):
        assert stored.seq == 1
        break
    assert len([stored async for stored in broker.read("LOG", [])]) == 10


async def test_a_long_read_is_complete(broker: Broker) -> None:
    """More messages than any window holds, through several filters."""
    await broker.ensure_stream(LOG)
    futures = [await broker.publish(f"log.{number % 3}", str(number).encode()) for number in range(5_000)]
    await asyncio.gather(*futures)
    found = [int(stored.body) async for stored in broker.read("LOG", ["log.0", "log.2"])]
    assert found == [number for number in range(5_000) if number % 3 != 1]


# --- tails ------------------------------------------------------------------------------------------------------------


async def test_a_tail_gives_what_was_there_and_what_comes(broker: Broker) -> None:
    """Each message once, in order, from the start asked for."""
    await given_log(broker, "log.a", "log.b", "log.a")
    tail = await broker.tail("LOG", ["log.a"], start_seq=2)
    assert tail.seq == 1
    assert await take(tail, 1) == [b"3"]
    assert tail.seq == 3
    await broker.append("log.b", b"no")
    await broker.append("log.a", b"4")
    assert await take(tail, 1) == [b"4"]
    await tail.stop()


async def test_a_tail_says_when_it_has_caught_up(broker: Broker) -> None:
    """Exactly when the last message that was there has been handed out."""
    await given_log(broker, *["log.a"] * 5)
    tail = await broker.tail("LOG", [], start_seq=1)
    await broker.append("log.a", b"later")
    assert not tail.caught_up
    assert await take(tail, 4) == [b"1", b"2", b"3", b"4"]
    assert not tail.caught_up
    assert await take(tail, 1) == [b"5"]
    assert tail.caught_up
    assert await take(tail, 1) == [b"later"]
    await tail.stop()


async def test_a_tail_of_nothing_has_caught_up(broker: Broker) -> None:
    """An empty stream, and one without a match."""
    await given_log(broker, "log.a")
    for tail in (
        await broker.tail("LOG", ["log.b"], start_seq=1), await broker.tail("LOG", [], start_seq=2)
    ):  # fmt: skip
        await tail.batch(max_count=10, wait_s=0.05)
        assert tail.caught_up
        await tail.stop()


async def test_a_batch_does_not_wait_to_be_full(broker: Broker) -> None:
    """One message ends the waiting; none is an empty list after the time given."""
    await broker.ensure_stream(LOG)
    tail = await broker.tail("LOG", [], start_seq=1)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    assert await tail.batch(max_count=100, wait_s=0.1) == []
    assert loop.time() - began_s >= 0.09
    waiting = asyncio.create_task(tail.batch(max_count=100, wait_s=10.0))
    await broker.append("log.a", b"1")
    async with asyncio.timeout(1.0):
        assert [stored.body for stored in await waiting] == [b"1"]
    await tail.stop()


async def test_cancelling_a_batch_loses_nothing(broker: Broker) -> None:
    """The next batch has the message."""
    await broker.ensure_stream(LOG)
    tail = await broker.tail("LOG", [], start_seq=1)
    waiting = asyncio.create_task(tail.batch(max_count=1, wait_s=10.0))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await broker.append("log.a", b"1")
    assert await take(tail, 1) == [b"1"]
    await tail.stop()


async def test_a_tail_keeps_up_with_more_than_its_window(broker: Broker) -> None:
    """Ten thousand messages, none twice and none missing, while they are written."""
    await broker.ensure_stream(LOG)
    tail = await broker.tail("LOG", ["log.0", "log.1"], start_seq=1)

    async def write() -> None:
        for _ in range(50):
            futures = [await broker.publish(f"log.{number % 3}", b"") for number in range(200)]
            await asyncio.gather(*futures)

    writing = asyncio.create_task(write())
    seqs: list[int] = []
    while len(seqs) < 50 * 134:
        batch = await tail.batch(max_count=333, wait_s=5.0)
        assert batch, f"stopped at {len(seqs)}"
        seqs += [stored.seq for stored in batch]
    await writing
    assert seqs == [seq for seq in range(1, 10_001) if (seq - 1) % 200 % 3 != 2]
    await tail.stop()


async def test_a_tail_may_begin_with_the_newest_of_each_subject(broker: Broker) -> None:
    """In order of sequence, then everything that comes."""
    await given_log(broker, "log.a", "log.b", "log.a", "log.c", "log.b", "other".replace("other", "log.d.e"))
    tail = await broker.tail("LOG", ["log.*"], start_seq=1, last_per_subject=True)
    assert not tail.caught_up
    assert await take(tail, 3) == [b"3", b"4", b"5"]
    assert tail.caught_up
    await broker.append("log.a", b"6")
    await broker.append("log.a", b"7")
    assert await take(tail, 2) == [b"6", b"7"]
    await tail.stop()


async def test_many_tails_see_the_same_order(backend: ConnectAny) -> None:
    """Whatever connection they use."""
    writer, reader = await backend(), await backend()
    await writer.ensure_stream(LOG)
    tails = [await one.tail("LOG", [], start_seq=1) for one in (writer, reader, reader)]
    futures = [await writer.publish(f"log.{number}", str(number).encode()) for number in range(100)]
    await asyncio.gather(*futures)
    seen = [await take(tail, 100) for tail in tails]
    assert seen[0] == seen[1] == seen[2] == [str(number).encode() for number in range(100)]
    for tail in tails:
        await tail.stop()
        await tail.stop()


async def test_filters_of_a_tail_must_not_overlap(broker: Broker) -> None:
    """A message would match twice."""
    await broker.ensure_stream(LOG)
    with pytest.raises(TerminalError):
        await broker.tail("LOG", ["log.>", "log.a"], start_seq=1)


# --- old messages -----------------------------------------------------------------------------------------------------


async def test_messages_leave_when_they_are_old(broker: Broker) -> None:
    """First moves on, last does not."""
    await broker.ensure_stream(StreamSpec("LOG", ("log.>",), max_age_s=0.2, duplicate_window_s=0.2))
    await broker.append("log.a", b"1")

    async def gone() -> bool:
        return await broker.get("LOG", 1) is None

    await until(gone, within_s=5.0)
    assert await broker.position("LOG") == (2, 1)
