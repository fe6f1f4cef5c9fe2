"""Keys that are no modifiers: each does what it says when a run meets it. `test_otp_n13` sees to it that none lacks."""

import functools
from pathlib import Path

import pytest

from tests.behaviour.cases import CASES, KeyCase
from tests.behaviour.world import Seen, played


@functools.cache
def case(key: str) -> KeyCase:
    """What is expected of a key."""
    return CASES[key]()


def run_id(key: str, name: str) -> str:
    """Of a key's script."""
    return f"{key}-{name}".replace(".", "-").replace("_", "-").replace("=", "-")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """All of them, side by side."""
    folder: Path = tmp_path_factory.mktemp("keys")
    scripts = {run_id(key, name): script for key in CASES for name, script in case(key).scripts.items()}
    return played(scripts, folder=folder)


@pytest.mark.parametrize("key", list(CASES))
def test_otp_n13_a_key_does_what_it_says(key: str, world: dict[str, Seen]) -> None:
    """By the real services, and seen where it matters: in the run's history, at the callee, in its outputs."""
    case(key).judge({name: world[run_id(key, name)] for name in case(key).scripts}, world)
