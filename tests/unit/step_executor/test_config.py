"""The executor's knobs."""

import pytest

from headrace.contracts import names
from headrace.contracts.errors import ConfigError
from headrace.runtime.config import load
from headrace_step_executor.config import Config


def configured(**environ: str) -> Config:
    return load(
        Config,
        {f"HEADRACE_STEP_EXECUTOR_{name}": value for name, value in environ.items()},
        service="step-executor",
    )


def test_queues_and_bounds_come_from_the_environment() -> None:
    """Lists are comma separated; every queue has the bound of its kind."""
    config = configured(QUEUES="tool, llm-gpu", TOOL_IN_FLIGHT_MAX="7", HTTP_ALLOW="127.0.0.1:80,10.0.0.0/8")
    assert config.queues == ("tool", "llm-gpu")
    assert (config.in_flight_max("tool"), config.in_flight_max("llm-gpu")) == (7, 32)
    assert config.http_allow == ("127.0.0.1:80", "10.0.0.0/8")
    assert configured().drain_s == names.EXECUTOR_DRAIN_S


@pytest.mark.parametrize(("name", "value"), [("QUEUES", "nosuch"), ("HTTP_ALLOW", "example.com"), ("THREADS", "0")])
def test_input_56_wrong_values_are_refused_by_name(name: str, value: str) -> None:
    """With the variable that holds them."""
    with pytest.raises(ConfigError, match=f"HEADRACE_STEP_EXECUTOR_{name}"):
        configured(**{name: value})
