"""Old paths as paths of the workspace."""

import pytest

from headrace.pipeline.importer.paths import beneath, escapes, in_workspace


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b", False),
        ("./a", False),
        ("a/../b", False),
        ("../a", True),
        ("a/../../b", True),
        ("/a", True),
        ("~/a", True),
        ("C:\\a", True),
        ("", False),
        ("..", True),
    ],
)
def test_a_path_that_leaves_its_directory_is_seen(path: str, expected: bool) -> None:
    """Absolute, upwards, of a home or a drive."""
    assert escapes(path) is expected


@pytest.mark.parametrize(("path", "expected"), [("../../a/b", "a/b"), ("a", "a"), ("..", ".")])
def test_what_leads_upwards_is_taken_off(path: str, expected: str) -> None:
    """The rest stays."""
    assert beneath(path) == expected


@pytest.mark.parametrize(
    ("path", "workspace", "expected"),
    [
        ("./workspace/a", "./workspace", "a"),
        ("ws/a/b", "./ws", "a/b"),
        ("workspace", "workspace", "."),
        ("workspaces/a", "workspace", "workspaces/a"),
        ("a", ".", "a"),
    ],
)
def test_the_old_workspace_is_the_runs_own(path: str, workspace: str, expected: str) -> None:
    """Its name at the front is taken off."""
    assert in_workspace(path, workspace) == expected
