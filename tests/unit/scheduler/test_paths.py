"""Paths of step instances, taken apart and put together."""

import pytest

from headrace.pipeline.plan import static_path
from headrace_scheduler.paths import asker_of, evaluation, is_inside, owner_of, part_of, place_of, scope_of, scope_path

PATHS = [
    # path, scope, part of, static path
    ("a", "", None, "a"),
    ("a[3]", "", ("a", 3), "a"),
    ("a[3]#2/b", "a[3]#2/", None, "a/b"),
    ("a[3]/b(10)/c[0]", "a[3]/b(10)/", ("a[3]/b(10)/c", 0), "a/b/c"),
    ("r#2:1/x(4)", "r#2:1/", ("r#2:1/x", 4), "r:1/x"),
]


@pytest.mark.parametrize(("path", "scope", "part", "static"), PATHS)
def test_a_path_says_where_an_instance_stands(path: str, scope: str, part: tuple[str, int] | None, static: str) -> None:
    """Its scope, the whole that it is a part of, and the node."""
    assert (scope_of(path), part_of(path), static_path(path)) == (scope, part, static)


@pytest.mark.parametrize("path", ["g", "g[3]", "g(0)", "a[1]/g"])
@pytest.mark.parametrize("attempt", [1, 2, 11])
@pytest.mark.parametrize("case", [-1, 0, 12])
def test_a_scope_knows_whose_it_is(path: str, attempt: int, case: int) -> None:
    """Whatever attempt and case; and everything in it is inside of its owner."""
    scope = scope_path(path, attempt, case)
    assert owner_of(scope) == path
    assert asker_of(scope + "?outputs") == path
    assert is_inside(scope + "x", path) and is_inside(scope + "?outputs", path)


@pytest.mark.parametrize(
    ("path", "word", "attempt", "asker"),
    [
        ("a", "when", 1, "a"),
        ("a[3]", "when", 1, "a[3]"),
        ("a[3]", "case0", 2, "a[3]"),
        ("w(2)", "while", 1, "w"),
        ("w(2)", "until", 1, "w"),
        ("w(2)", "spec", 3, "w(2)"),
        ("", "outputs", 1, ""),
    ],
)
def test_an_evaluation_is_made_for_somebody(path: str, word: str, attempt: int, asker: str) -> None:
    """For a loop's condition that is the loop, for a run's outputs nobody."""
    assert asker_of(evaluation(path, word, attempt)) == asker


def test_only_what_lies_in_an_instance_is_inside_of_it() -> None:
    """Not itself, not one whose name begins alike."""
    inside = ["a[0]", "a(0)", "a#2/x", "a:0/x", "a/x", "a?when", "a[0]/b[1]"]
    assert all(is_inside(path, "a") for path in inside)
    assert not any(is_inside(path, "a") for path in ("a", "ab", "a-b", "a_b", "b/a"))


def test_items_and_iterations_are_ordered_by_number() -> None:
    """The tenth comes after the second."""
    paths = ["a[10]/b", "a[2]/b(1)/c", "a[2]/b(0)/c"]
    assert sorted(paths, key=place_of) == ["a[2]/b(0)/c", "a[2]/b(1)/c", "a[10]/b"]
    assert place_of("a") == ""
