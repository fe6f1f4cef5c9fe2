"""Identities that every process computes alike, pinned by golden values: changing one changes every log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import ids, names
from headrace.contracts.canonical import canonical_json, sha256_hex
from headrace.contracts.subjects import run_prefix

RUNS = st.from_regex(ids.CLIENT_RUN_RE, fullmatch=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [("", 0x811C9DC5), ("a", 0xE40C292C), ("b", 0xE70C2DE5), ("foobar", 0xBF9CF968), ("ä", 0x199DE0E2)],
)
def test_fnv1a32_gives_the_published_vectors(text: str, value: int) -> None:
    """The broker's `partition()` mapping hashes the same way."""
    assert ids.fnv1a32(text) == value


@pytest.mark.parametrize(("run", "part"), [("01KAX5R7Q0ZJ8M2T9D4W6YB3CE", 20), ("nightly-7", 22), ("a", 12)])
def test_a_partition_is_what_it_always_was(run: str, part: int) -> None:
    """Golden values: the partition is part of every subject ever written."""
    assert ids.partition_of(run) == part
    assert run_prefix("default", "demo", run) == f"hr.evt.default.demo.{part:02d}.{run}"


@given(RUNS, st.text(max_size=20), st.text(max_size=20))
def test_a_tree_of_runs_lives_in_one_partition(root: str, path: str, below: str) -> None:
    """Children and grandchildren carry their root's id, differ from each other, and are valid run ids."""
    child = ids.child_run_id(root, path)
    grandchild = ids.child_run_id(child, below)
    for run in (child, grandchild):
        assert ids.RUN_RE.fullmatch(run)
        assert not ids.CLIENT_RUN_RE.fullmatch(run)
        assert ids.root_of(run) == root
        assert ids.partition_of(run) == ids.partition_of(root)
    assert child != grandchild
    assert 0 <= ids.partition_of(root) < names.PARTITIONS


def test_a_childs_id_is_what_it_always_was() -> None:
    """Golden: parents find their children by it after any restart."""
    child = ids.child_run_id("nightly-7", "review[3]")
    assert child == "nightly-7_25a352c3f1da2252"
    assert ids.child_run_id(child, "review[3]") == "nightly-7_d9d1d7f506f2e096"


def test_an_event_id_is_what_it_always_was() -> None:
    """Golden: deduplication across releases hangs on it."""
    parts = ("io.headrace.attempt.succeeded.v1", "default", "nightly-7", "list", 1, 1, 0)
    assert ids.event_id(*parts) == "9e38df211f1d9555f0584e04556edf27"
    assert ids.event_id(*parts, data=canonical_json({"b": 1, "a": 2.0})) == "97ce5340647166a276178d0b0ed302ad"


@given(st.lists(st.text(max_size=5) | st.integers(0, 9), min_size=1, max_size=7))
def test_an_event_id_differs_where_any_part_differs(parts: list[str | int]) -> None:
    """Parts do not run together: ("ab", "c") is not ("a", "bc"), 1 is not "1"."""
    assert ids.event_id(*parts) != ids.event_id(*parts, "")
    changed = [*parts[:-1], f"{parts[-1]}"] if isinstance(parts[-1], int) else [*parts[:-1], parts[-1] + "x"]
    assert ids.event_id(*parts) != ids.event_id(*changed)
    assert ids.event_id(*parts) != ids.event_id(*parts, data=b"{}")


def test_a_result_with_other_content_is_another_fact() -> None:
    """Without the content, deduplication would hide a lost write."""
    assert ids.event_id("t", data=b"1") != ids.event_id("t", data=b"2")


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("fs.read", "fs-read-4074bc"),
        ("plain_name-1", "plain_name-1"),
        ("GPT", "gpt-2c4e6f"),
        ("", "-e3b0c4"),
        ("a.b", "a-b-2e7336"),
    ],
)
def test_a_token_is_what_it_always_was(name: str, token: str) -> None:
    """Golden: subjects of tools and sessions."""
    assert ids.token(name) == token


@given(st.text(max_size=30), st.text(max_size=30))
def test_tokens_are_tokens_and_tell_names_apart(one: str, other: str) -> None:
    """Whatever the name, the result may stand in a subject."""
    assert all(character.isascii() and (character.isalnum() or character in "_-") for character in ids.token(one))
    if one != other and len({sha256_hex(name.encode())[:6] for name in (one, other)}) == 2:
        assert ids.token(one) != ids.token(other)


@given(st.text(min_size=1, max_size=128))
def test_any_command_id_gives_a_run_id_and_a_token(command: str) -> None:
    """An id that is one already stays as it is."""
    run, token = ids.run_id_of_command(command), ids.command_token(command)
    assert ids.CLIENT_RUN_RE.fullmatch(run) and ids.COMMAND_RE.fullmatch(token)
    assert run == command or not ids.CLIENT_RUN_RE.fullmatch(command)
    assert token == command or not ids.COMMAND_RE.fullmatch(command)


@given(st.integers(0, 2**47), st.integers(0, 2**47), st.integers(0, 2**80 - 1))
def test_ulids_sort_by_time(early: int, late: int, random80: int) -> None:
    """26 characters; the earlier instant sorts first."""
    one, other = ids.ulid(early, random80), ids.ulid(late, random80)
    assert len(one) == 26 and ids.CLIENT_RUN_RE.fullmatch(one)
    assert (one < other) == (early < late)


def test_the_key_for_the_outside_world_is_the_same_for_all_attempts() -> None:
    """Run and step, nothing else."""
    assert ids.idempotency_key("nightly-7", "pay[2]") == "nightly-7/pay[2]"
