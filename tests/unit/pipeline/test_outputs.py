"""What is known of outputs when a file is loaded."""

import pytest

from headrace.pipeline.outputs import output_fields


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"transform": {"a": 1, "b": 2}}, {"a", "b"}),
        ({"transform": "${{ 1 }}"}, None),
        ({"transform": {"from": "x", "aggregate": {"n": {"count": ""}}}}, {"n"}),
        ({"transform": {"from": "x", "aggregate": {"n": {"count": ""}}, "group_by": "k"}}, None),
        ({"wait": {"for": "1s"}}, set()),
        ({"emit": {"name": "x"}}, set()),
        ({"steps": {}, "outputs": {"o": 1}}, {"o"}),
        ({"steps": {}}, set()),
        ({"switch": [{"when": "x", "steps": {}, "outputs": {"a": 1}}, {"default": {"outputs": {"b": 1}}}]}, {"a", "b"}),
        ({"foreach": [1], "transform": {"a": 1}}, {"items", "failed", "counts"}),
        ({"while": "x", "steps": {}, "outputs": {"o": 1}}, None),
        ({"transform": {"a": 1}, "fallback": {"value": 1}}, None),
        ({"tool": "fs.write"}, {"path", "bytes", "sha256"}),
        ({"tool": "mcp.a.b"}, None),
        ({"llm": {"prompt": "x"}}, None),
        (None, None),
    ],
)
def test_the_keys_of_an_output(body: object, expected: object) -> None:
    """None where only the value tells."""
    assert output_fields(body, None) == expected
