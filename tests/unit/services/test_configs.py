"""Every knob of every service: read from the environment, bounded, and explained where it stands."""

import ast
import inspect
from types import ModuleType

import pytest

import headrace.runtime.config
import headrace_monitor.config
import headrace_scheduler.config
import headrace_session_store.config
import headrace_step_executor.config
import headrace_tool_registry.config
from headrace.contracts.errors import ConfigError
from headrace.runtime.config import load

SERVICES = {
    "monitor": headrace_monitor.config,
    "scheduler": headrace_scheduler.config,
    "session-store": headrace_session_store.config,
    "step-executor": headrace_step_executor.config,
    "tool-registry": headrace_tool_registry.config,
}


@pytest.mark.parametrize("service", SERVICES)
def test_an_empty_environment_gives_a_service_its_defaults(service: str) -> None:
    """Nothing has to be set to try a service out, and the shared settings are the same everywhere."""
    config = load(SERVICES[service].Config, {}, service=service)
    assert config.nats_url == "nats://127.0.0.1:4222"
    assert config.read_roots == ()


@pytest.mark.parametrize(
    ("service", "variable", "text"),
    [
        ("monitor", "HEADRACE_MONITOR_RUNS_MAX", "1"),
        ("scheduler", "HEADRACE_SCHEDULER_OFFERS_OUT_MAX", "0"),
        ("session-store", "HEADRACE_SESSION_STORE_CACHE_BYTES_MAX", "1"),
        ("step-executor", "HEADRACE_STEP_EXECUTOR_QUEUES", "gpu"),
        ("tool-registry", "HEADRACE_DRAIN_S", "0"),
    ],
)
def test_a_knob_out_of_its_bounds_is_named(service: str, variable: str, text: str) -> None:
    """The variable is in the message: that is what has to be changed."""
    with pytest.raises(ConfigError, match=variable):
        load(SERVICES[service].Config, {variable: text}, service=service)


@pytest.mark.parametrize("module", [headrace.runtime.config, *SERVICES.values()], ids=lambda module: module.__name__)
def test_every_knob_says_what_it_is(module: ModuleType) -> None:
    """A line below the field: unit, and why this default."""
    silent = []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, ast.ClassDef) or node.name not in ("Config", "Settings"):
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and not said:
                silent.append(ast.unparse(field.target))
    assert silent == []
