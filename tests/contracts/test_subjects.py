"""Subjects are built in one place and come apart as they were put together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import ids, names, subjects

TOKEN = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
NAME = st.from_regex(ids.NAME_RE, fullmatch=True)
RUN = st.from_regex(ids.RUN_RE, fullmatch=True)
DIGEST = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(TOKEN, NAME, RUN, NAME, st.sampled_from(names.QUEUES))
def test_a_run_subject_comes_apart_as_it_was_built(tenant: str, pipeline: str, run: str, word: str, queue: str) -> None:
    """Tenant, pipeline, partition, run, kind and the rest."""
    prefix = subjects.run_prefix(tenant, pipeline, run)
    part = ids.partition_of(run)
    for subject, kind, rest in (
        (subjects.decision(prefix, word), "decision", word),
        (subjects.decision(prefix, f"scheduled.{queue}"), "decision", f"scheduled.{queue}"),
        (subjects.order(prefix, queue), "order", f"scheduled.{queue}"),
        (subjects.report(prefix, word), "report", word),
        (subjects.claim(prefix, word), "report", f"claim.{word}"),
        (subjects.input_(prefix, word), "input", word),
    ):
        assert subjects.parse_run_subject(subject) == subjects.RunSubject(tenant, pipeline, part, run, kind, rest)
        assert subject.startswith(subjects.partition_filter(part).replace("*.*", f"{tenant}.{pipeline}").rstrip(">"))


@given(RUN)
def test_all_decisions_of_a_run_and_nothing_else_are_in_its_scope(run: str) -> None:
    """One identical string is what the broker compares; orders, reports and inputs lie outside."""
    prefix = subjects.run_prefix("default", "demo", run)
    scope = subjects.decision_scope(prefix).removesuffix(">")
    assert subjects.decision(prefix, "progressed").startswith(scope)
    assert subjects.decision(prefix, "scheduled.llm").startswith(scope)
    for other in (subjects.order(prefix, "llm"), subjects.report(prefix, "x"), subjects.input_(prefix, "x")):
        assert not other.startswith(scope)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "hr",
        "hr.evt.default.demo.07.run.decision",
        "hr.evt.default.demo.xx.run.decision.progressed",
        "hr.cmd.default.demo.07.run.decision.progressed",
        "xx.evt.default.demo.07.run.decision.progressed",
    ],
)
def test_what_is_no_run_subject_is_none(subject: str) -> None:
    """Not an exception: strangers may publish anything."""
    assert subjects.parse_run_subject(subject) is None


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    """None or parts, never an exception."""
    subjects.parse_run_subject(text)
    subjects.parse_run_subject(f"hr.evt.{text}")


@pytest.mark.parametrize("streams", [1, 2, 3, 4, 32])
def test_every_partition_has_one_stream_and_ranges_are_contiguous(streams: int) -> None:
    """Every stream holds something, in the order of the partitions."""
    held = [subjects.runs_stream(part, streams=streams) for part in range(names.PARTITIONS)]
    assert tuple(dict.fromkeys(held)) == subjects.runs_streams(streams)
    assert held == sorted(held, key=lambda name: int(name.rpartition("_")[2]))


def test_a_blob_lies_under_its_root_run() -> None:
    """A tree of runs is purged with one filter."""
    ref = subjects.blob_ref(ids.child_run_id("nightly-7", "a"), DIGEST)
    assert ref == f"nightly-7/{DIGEST}"
    assert subjects.blob("default", ref) == f"hr.blob.default.nightly-7.{DIGEST}"
    assert subjects.blob("default", ref, 3) == f"hr.blob.default.nightly-7.{DIGEST}.3"
    assert subjects.kv(subjects.LEASES, "member.one") == "$KV.hr-leases.member.one"


@given(st.text(min_size=1, max_size=128))
def test_any_command_id_has_an_outcome_subject(command: str) -> None:
    """Four tokens, whatever the client called its command."""
    tokens = subjects.outcome("default", command).split(".")
    assert len(tokens) == 4 and all(tokens)
