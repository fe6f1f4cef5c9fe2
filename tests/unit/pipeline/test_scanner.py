"""Finding expressions in text, and rewriting them by their tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.evaluation import compile_expression, evaluate
from headrace.pipeline.scanner import (
    Piece,
    UnclosedExpressionError,
    offset_before,
    pieces,
    places_of,
    renamed,
    tokens,
    with_collected_lists,
)


@given(st.text(alphabet="ab.(){}[]'\"\\ \n/r$?,", max_size=60))
def test_tokens_are_the_whole_text_whatever_it_is(text: str) -> None:
    """Nothing is lost and nothing fails."""
    assert "".join(token.text for token in tokens(text)) == text


@given(st.text(alphabet="a${}' \"\\", max_size=40))
def test_pieces_hold_the_text_or_say_what_is_open(text: str) -> None:
    """Literal text and sources give the text again, escapes undone."""
    try:
        found = pieces(text)
    except UnclosedExpressionError as error:
        opening = text[error.start :]
    else:
        opening = ""
    if opening:
        assert opening.startswith("${{")
        return
    assert all(text[piece.start :].startswith(piece.text) for piece in found if piece.is_expression)
    rebuilt = "".join("${{" + piece.text + "}}" if piece.is_expression else piece.text for piece in found)
    assert len(text) - len(rebuilt) == text.count("$${{")
    assert rebuilt.replace("$", "") == text.replace("$", "")


def test_braces_of_maps_and_texts_do_not_close_an_expression() -> None:
    """Only `}}` outside of both."""
    assert pieces("x ${{ {'a': {'b': '}}'}} }} y") == [
        Piece(is_expression=False, text="x ", start=0),
        Piece(is_expression=True, text=" {'a': {'b': '}}'}} ", start=5),
        Piece(is_expression=False, text=" y", start=27),
    ]
    with pytest.raises(UnclosedExpressionError) as caught:
        pieces("a ${{ '}}' }")
    assert caught.value.start == 2


def test_a_variable_is_renamed_and_nothing_else_of_its_name() -> None:
    """Fields, functions and texts stay; a condition's `?` is no field; offsets lead back."""
    source = "f(f.f, x.f, x.?f, 'f', a ? f : f)"
    places = places_of(source, "f")
    edits = [(place, "f", "item") for place in places]
    assert renamed(source, edits) == "f(item.f, x.f, x.?f, 'f', a ? item : item)"
    assert offset_before(edits, len("f(item.f, x.")) == len("f(f.f, x.")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("inputs.x.map(a, a)", [3, 1, 2]),
        ("inputs.x . map ( a , a + 1 )", [4, 2, 3]),
        ("inputs.x.filter(a, a > 1 || a < 0)", [3, 2]),
        ("inputs.x.map(a, a > 1, {'v': [a]})", [{"v": [3]}, {"v": [2]}]),
        ("inputs.x.map(a, inputs.x.map(b, a * b).filter(c, c > 3))", [[9, 6], [], [6, 4]]),
        ("inputs.x.map(a, [a].map(a, a + 1)[0])", [4, 2, 3]),
        ("inputs.x.map(a, '.map(' + string(a))", [".map(3", ".map(1", ".map(2"]),
        ("inputs.x.map(a, {'a, )': a}).map(m, m['a, )'])", [3, 1, 2]),
        ("inputs.x.exists(a, inputs.x.filter(b, b > a) == [])", True),
        ("inputs.x.map(a, inputs.x.map(b, 1 / (b - 3)) == [] || true)", [True, True, True]),
    ],
)
def test_rewritten_macros_give_what_cel_says(source: str, expected: object) -> None:
    """Nested, chained, with a condition, beside texts that look like macros, and when an inner one fails."""
    assert with_collected_lists(source) != source
    assert evaluate(compile_expression(source), {"inputs": {"x": [3, 1, 2]}}) == expected
