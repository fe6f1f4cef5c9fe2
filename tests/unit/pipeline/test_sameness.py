"""What a step's result comes from, what it reads, and what it leaves behind."""

from typing import Any

import pytest
from tests.builders import plan, tool

from headrace.pipeline.sameness import leaves_files, meaning, reads, undoes

TOP = {"inputs": {"n": {"default": 0}, "m": {"default": 0}}, "vars": {"v": 1}}


def of(step: dict[str, Any], **more: Any) -> Any:
    """A plan with this step, and one beside it that others may name."""
    return plan({"s": step, "other": tool()} | more, **TOP, workspace=True)


SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "how often": (tool(), tool(retry={"attempts": 2}, timeout="1s", deadline="2s")),
    "when among others": (tool(), tool(priority=3, needs=["other"])),
    "how many at a time": ({"foreach": "${{ [1] }}", **tool()}, {"foreach": "${{ [1] }}", "max_parallel": 1, **tool()}),
    "what its failure does": (tool(), tool(on_error="continue")),
    "how it is undone": (tool(), tool(compensate="other")),
    "the name of the item": (
        {"foreach": "${{ [1] }}", **tool(**{"with": {"x": "${{ item }}"}})},
        {"foreach": "${{ [1] }}", "as": "each", **tool(**{"with": {"x": "${{ each }}"}})},
    ),
}
DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "its arguments": (tool(), tool(**{"with": {"x": 1}})),
    "its tool": (tool(), {"tool": "demo.other", "with": {}}),
    "its condition": (tool(), tool(when="inputs.n > 0")),
    "its list": ({"foreach": "${{ [1] }}", **tool()}, {"foreach": "${{ [2] }}", **tool()}),
    "what a failed item does": (
        {"foreach": "${{ [1] }}", **tool()},
        {"foreach": "${{ [1] }}", "on_item_error": "continue", **tool()},
    ),
    "its loop": (
        {"while": "iteration < 1", "max_iterations": 3, **tool()},
        {"while": "iteration < 2", "max_iterations": 3, **tool()},
    ),
    "what stands in": (tool(fallback={"value": 1}), tool(fallback={"value": 2})),
    "who stands in": (tool(fallback={"value": 1}), tool(fallback="other")),
    "a step inside": ({"steps": {"x": tool()}}, {"steps": {"x": tool(**{"with": {"y": 1}})}}),
    "the order inside": (
        {"steps": {"x": tool(), "y": tool()}},
        {"steps": {"x": tool(), "y": tool(needs=["x"])}},
    ),
    "what a group gives": (
        {"steps": {"x": tool()}, "outputs": {"a": "${{ steps.x.output }}"}},
        {"steps": {"x": tool()}, "outputs": {"b": "${{ steps.x.output }}"}},
    ),
    "a case": (
        {"switch": [{"when": "inputs.n > 0", "steps": {"x": tool()}}]},
        {"switch": [{"when": "inputs.n > 1", "steps": {"x": tool()}}]},
    ),
    "its signal": ({"signal": {"name": "a"}}, {"signal": {"name": "b"}}),
    "its child": ({"pipeline": "a"}, {"pipeline": "b"}),
}


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [(*pair, True) for pair in SAME.values()] + [(*pair, False) for pair in DIFFERENT.values()],
    ids=[*SAME, *DIFFERENT],
)
def test_an_edit_changes_the_meaning_or_not(one: dict[str, Any], other: dict[str, Any], is_same: bool) -> None:
    """What only says how a result is come by is no part of it."""
    hashes = [meaning(made, made.by_id["s"]) for made in (of(one), of(other))]
    assert (hashes[0] == hashes[1]) is is_same


def test_what_is_read_is_known_by_name() -> None:
    """Inside too; None where it may be anything."""
    made = of(
        {"steps": {"x": tool(**{"with": {"n": "${{ inputs.n }}", "v": "${{ vars.v }}"}})}},
        whole=tool(**{"with": {"all": "${{ inputs }}"}}),
    )
    assert reads(made, made.by_id["s"], "inputs") == {"n"}
    assert reads(made, made.by_id["s"], "vars") == {"v"}
    assert reads(made, made.by_id["other"], "inputs") == frozenset()
    assert reads(made, made.by_id["whole"], "inputs") is None


def test_who_writes_files_and_who_is_undone() -> None:
    """Inside too. Built-in tools that only read are known."""
    read, write = {"tool": "fs.read", "with": {"path": "x"}}, {"tool": "fs.write", "with": {"path": "x", "text": "y"}}
    made = of(
        read,
        write=write,
        group={"steps": {"w": write}},
        quiet={"steps": {"r": read}},
        undone=tool(compensate="u"),
        u=tool(),
    )
    assert [name for name in ("s", "write", "group", "quiet", "other") if leaves_files(made, made.by_id[name])] == [
        "write",
        "group",
    ]
    inside = of({"steps": {"a": tool(compensate="u"), "u": tool()}})
    assert undoes(inside, inside.by_id["s"]) and undoes(made, made.by_id["undone"])
    assert not undoes(made, made.by_id["group"])
