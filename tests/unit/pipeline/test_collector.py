"""The garbage collector pauses and goes on."""

import gc

import pytest

from headrace.pipeline import collector


def test_the_collector_goes_on_whatever_happens_inside() -> None:
    """Also after an error, and pauses inside of pauses leave it to the outermost."""
    assert gc.isenabled()
    with collector.paused():
        with collector.paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()

    def failing() -> None:
        with collector.paused():
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        failing()
    assert gc.isenabled()
