"""What lines for people look like."""

import pytest

from headrace.cli.output import counted, printable, value_text


@pytest.mark.parametrize(("count", "text"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps")])
def test_one_thing_is_singular(count: int, text: str) -> None:
    """`1 step`, never `1 steps`."""
    assert counted(count, "step") == text


def test_what_would_drive_a_terminal_is_shown_as_json_escapes() -> None:
    """Escape sequences in seven and eight bits, deletes, and marks that turn the direction; the rest stays as it is."""
    assert printable("a\tb\nc é 漢 🙂") == "a\tb\nc é 漢 🙂"
    assert printable("\x00\x1b\r\x7f\x9b\u202e\u2066") == r"\u0000\u001b\u000d\u007f\u009b\u202e\u2066"


def test_text_values_keep_their_lines() -> None:
    """A line that ends the Windows way ends; a long value says how long it is."""
    assert value_text("one\r\ntwo") == "one\ntwo"
    assert value_text("x" * 600).endswith("… (600 characters)")
