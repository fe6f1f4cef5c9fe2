"""Where values stand, down to a character inside a scalar."""

from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipeline.loader import load_bytes
from headrace.pipeline.positions import Place, Positions


def test_without_a_file_everything_is_at_its_beginning() -> None:
    """A stored definition has no lines."""
    assert Positions().value(("steps", "a")) == Place(1, 1)
    assert Positions().inside(("a",), "text", 3) == Place(1, 1)


@settings(max_examples=150, deadline=None)
@given(
    st.text(alphabet="ab 'é\"\n\\:#x", max_size=30).map(lambda text: text + "X" + text[::-1]),
    st.sampled_from(["|", ">", "'", '"']),
)
def test_a_character_is_found_in_every_style_of_scalar(value: str, style: str) -> None:
    """The marker is found where the file has it."""
    if "X" in value.replace("X", "", 1):
        return
    text = yaml.dump({"k": value}, default_style=style, allow_unicode=True, width=20)
    loaded = load_bytes(text.encode(), "p.yaml")
    read: Any = loaded.document["k"]
    assert read == value
    place = loaded.positions.inside(("k",), read, read.index("X"))
    line = text.split("\n")[place.line - 1]
    assert line[place.column - 1] == "X", (text, place)
