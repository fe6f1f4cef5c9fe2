"""Counts and parts of conversations as people write them."""

import pytest

from headrace.pipeline.quantities import QuantityError, parse_count, parse_include


def test_counts_are_numbers_or_numbers_with_a_unit() -> None:
    """Powers of ten, and nothing that could be read in two ways."""
    assert [parse_count(given) for given in (7, "500k", "2M", "1G")] == [7, 500_000, 2_000_000, 1_000_000_000]
    for other in ("2m", "2 M", "1.5M", "M", "", "-1k", "2MB", True, 1.5, None, "9" * 16 + "k"):
        with pytest.raises(QuantityError, match="expected a count"):
            parse_count(other)


def test_a_part_of_a_conversation_is_its_last_turns_with_or_without_a_summary() -> None:
    """Nothing else is understood, and nothing is guessed."""
    assert parse_include("last 20") == (False, 20)
    assert parse_include("summary+last 1") == (True, 1)
    for other in ("last 0", "last", "summary", "first 3", "last 20 ", 20):
        with pytest.raises(QuantityError):
            parse_include(other)
