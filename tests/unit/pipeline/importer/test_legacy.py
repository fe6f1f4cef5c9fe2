"""Reading old maps: types, spellings, and what nobody took."""

import pytest

from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.report import Notes, RefusedError
from headrace.pipeline.positions import Positions


def section(**value: object) -> Section:
    """A map of an old file."""
    return Section(Notes("a.yaml", Positions()), value)


def test_what_nobody_takes_is_left() -> None:
    """Null counts as absent."""
    one = section(a=1, b=2, c=None, d=4)
    one.take("a")
    assert one.first("x", "d") == ("d", 4)
    assert list(one.left()) == ["b"]


@pytest.mark.parametrize(
    ("read", "value"),
    [("text", [1]), ("whole", "5"), ("whole", -1), ("whole", True), ("number", "x"), ("flag", "yes"), ("listed", {}),
     ("texts", [1]), ("section", []), ("sections", [1])],
)  # fmt: skip
def test_a_wrong_type_is_refused_with_its_key(read: str, value: object) -> None:
    """Options of a wrong type were passed on unchecked."""
    one = section(key=value)
    with pytest.raises(RefusedError) as caught:
        getattr(one, read)("key")
    assert "`key`" in str(caught.value)
    assert one.notes.refused


def test_scalars_are_read_as_text_where_text_is_meant() -> None:
    """Old files quote at will."""
    one = section(a=1.0, b=True, c="x")
    assert (one.text("a"), one.text("b"), one.text("c"), one.text("d")) == ("1.0", "true", "x", None)
    assert section(a="x").texts("a") == ["x"]
