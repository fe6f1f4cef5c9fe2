"""A document as YAML text: it reads back as the document, and people can read it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipeline.importer.emit import as_yaml
from headrace.pipeline.loader import load_bytes

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30) | st.sampled_from(
    [
        "012",
        "1e3",
        "0x1f",
        "no",
        "null",
        "~",
        "on",
        "a: b",
        "a #b",
        " a",
        "a ",
        "a\n",
        "a \nb",
        "\n\n",
        "-",
        "- a",
        ("${{ x }}"),
        "\ta",
        "a\tb",
        "\u2028",
        "x\x85y",
        "'q' \"r\"",
        "? a",
        "{a",
        "[",
        "%",
        "@x",
        "1:30",
        "2024-01-01",
        ".inf",
        "<<",
        "=",
        "!a",
    ]
)


@given(
    st.dictionaries(
        TEXTS.filter(bool),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e300, 1e300) | TEXTS,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS.filter(bool), inner, max_size=3),
            max_leaves=10,
        ),
        min_size=1,
        max_size=4,
    ),
    st.lists(TEXTS, max_size=2),
)
@settings(deadline=None, max_examples=150)
def test_the_text_reads_back_as_the_document(document: dict[str, object], comments: list[str]) -> None:
    """By our own loader, whatever the texts are, and with comments above any key."""
    path = (next(iter(document)),)
    text = as_yaml(document, {path: comments}, ["header\nof two lines"])
    assert load_bytes(text.encode(), "x").document == document


def test_long_text_stands_below_a_bar_and_comments_above_their_keys() -> None:
    """Blanks at the ends of lines are no reason to write escapes."""
    document = {
        "steps": {"a": {"llm": {"prompt": "one \n  two\n", "options": {"top_k": 3}}, "retry": {"on": ["timeout"]}}}
    }
    text = as_yaml(document, {("steps", "a", "llm", "prompt"): ["why"], ("steps", "b"): ["gone"]}, ["head"])
    assert text == (
        "# head\n# gone\nsteps:\n  a:\n    llm:\n      # why\n      prompt: |\n        one \n          two\n"
        "      options: {top_k: 3}\n    retry: {on: [timeout]}\n"
    )
