"""Filters agree with a plain reading of the broker's rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import DataError
from headrace.runtime.subject_filters import check_header, check_subject, common_filter, filter_regex, overlap

TOKENS = st.sampled_from(["a", "b", "a-b"])
SUBJECTS = st.lists(TOKENS, min_size=1, max_size=4)
FILTERS = st.builds(
    lambda tokens, tail: [*tokens, *tail],
    st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
)


def matches(tokens: list[str], subject: list[str]) -> bool:
    """The rules, token by token."""
    if not tokens or not subject:
        return not tokens and not subject
    if tokens[0] == ">":
        return True
    return tokens[0] in ("*", subject[0]) and matches(tokens[1:], subject[1:])


@given(FILTERS, SUBJECTS)
def test_a_filter_matches_as_the_rules_say(tokens: list[str], subject: list[str]) -> None:
    """One token for `*`, one or more for a last `>`."""
    found = filter_regex([".".join(tokens)]).fullmatch(".".join(subject))
    assert bool(found) == matches(tokens, subject)


@given(st.lists(FILTERS, min_size=1, max_size=4), SUBJECTS)
def test_the_common_filter_takes_everything_that_any_takes(filters: list[list[str]], subject: list[str]) -> None:
    """And without filters everything matches."""
    common = common_filter([".".join(tokens) for tokens in filters])
    if any(matches(tokens, subject) for tokens in filters):
        assert matches(common.split("."), subject), common
    assert filter_regex(()).fullmatch(".".join(subject))


@given(FILTERS, FILTERS, SUBJECTS)
def test_filters_that_share_a_subject_overlap(one: list[str], other: list[str], subject: list[str]) -> None:
    """Never says no where a subject says yes."""
    if matches(one, subject) and matches(other, subject):
        assert overlap(".".join(one), ".".join(other))


def test_the_common_filter_is_narrow() -> None:
    """Partitions of runs share everything but the partition."""
    assert common_filter(["hr.evt.*.*.01.>", "hr.evt.*.*.17.>"]) == "hr.evt.*.*.*.>"
    assert common_filter(["a.b.c"]) == "a.b.c"
    assert common_filter(["a.b", "a.b.c"]) == "a.>"
    assert not overlap("a.b", "a.b.>")
    assert not overlap("a.*.c", "a.b.d")


@pytest.mark.parametrize("subject", ["", " ", "a b", "a\t", "a..b", ".a", "a.", "a\r\nb"])
def test_what_the_protocol_cannot_carry_is_refused(subject: str) -> None:
    """Before it reaches a socket."""
    with pytest.raises(DataError):
        check_subject(subject)


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("a:b", "x"), ("a\n", "x"), ("a", "x\r\nb: y")])
def test_a_header_cannot_write_another(name: str, value: str) -> None:
    """Line breaks and colons."""
    with pytest.raises(DataError):
        check_header(name, value)
