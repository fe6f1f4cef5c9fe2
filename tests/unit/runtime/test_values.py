"""Values on their way into messages."""

from typing import Any

import msgspec
import pytest

from headrace.contracts.envelope import ItemResult, Value
from headrace.contracts.errors import CorruptError
from headrace.contracts.failure import Failure
from headrace.runtime.values import NotJsonError, OutOfRangeError, encode_checked, foreach_output, item_refs

RESULTS = [
    ItemResult(status="succeeded", value=Value(json=msgspec.Raw(b"1"))),
    ItemResult(status="failed", failure=Failure(code="timeout", message="late")),
    ItemResult(status="skipped"),
    ItemResult(status="succeeded", value=Value(ref="r/a", index=1)),
    ItemResult(status="cancelled"),
]


def test_a_foreach_gives_items_by_index_its_failures_and_counts() -> None:
    """Null stands where an item has no value; values by reference are put in their places."""
    assert foreach_output(RESULTS, {"r/a": ["x", "y"]}) == {
        "items": [1, None, None, "y", None],
        "failed": [{"index": 1, "code": "timeout", "message": "late"}],
        "counts": {"total": 5, "succeeded": 2, "failed": 1, "skipped": 1},
    }
    assert item_refs(RESULTS) == ("r/a",)
    assert foreach_output([])["counts"]["total"] == 0
    with pytest.raises(CorruptError, match="r/a"):
        foreach_output(RESULTS)


@pytest.mark.parametrize(
    ("value", "place"),
    [({"a": [1, float("nan")]}, r"\$\.a\[1\]"), (float("inf"), r"\$"), ({"n": 2**63}, r"\$\.n"),
     ([-(2**63) - 1], r"\$\[0\]"),
     (10**400, r"\$")],
)  # fmt: skip
def test_input_41_numbers_that_do_not_fit_are_errors_with_their_place(value: Any, place: str) -> None:
    """NaN and infinities never become null, integers beyond 64 bits never pass."""
    with pytest.raises(OutOfRangeError, match=place):
        encode_checked(value)


def test_numbers_at_the_border_and_digits_in_text_pass() -> None:
    """Only numbers are numbers."""
    value = {"a": 2**63 - 1, "b": -(2**63), "c": "99999999999999999999", "d": None, "e": 1.0}
    data = b'{"a":9223372036854775807,"b":-9223372036854775808,"c":"99999999999999999999","d":null,"e":1.0}'
    assert encode_checked(value) == data


def test_input_40_lone_surrogates_become_replacement_characters() -> None:
    """In values and keys; pairs are characters and stay."""
    assert encode_checked({"k\ud800": ["a\udfffb", "\U0001f600"]}) == '{"k�":["a�b","😀"]}'.encode()


def test_what_is_no_json_is_an_error() -> None:
    """Objects, endless nesting."""
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for value in (object(), {1: {object()}}, nested):
        with pytest.raises(NotJsonError):
            encode_checked(value)
