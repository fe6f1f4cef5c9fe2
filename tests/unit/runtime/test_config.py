"""Configuration is read once, checked as a whole, and refused with the name of what is wrong."""

from pathlib import Path

import pytest
from pydantic import Field

from headrace.contracts.errors import ConfigError
from headrace.runtime.config import Settings, load


class Config(Settings):
    """With a knob of its own."""

    reply_s: float = Field(default=5.0, gt=0, le=60)


def test_defaults_need_no_environment() -> None:
    """Other programs' variables are none of ours."""
    config = load(Config, {"PATH": "/bin", "OTEL_SERVICE_NAME": "x"}, service="monitor")
    assert (config.tenant, config.reply_s, config.metrics_port) == ("default", 5.0, 0)


def test_values_come_from_their_variables() -> None:
    """Shared knobs have plain names, a service's own carry its name."""
    config = load(
        Config,
        {
            "HEADRACE_TENANT": "acme",
            "HEADRACE_READ_ROOTS": "/a:/b",
            "HEADRACE_TOOL_REGISTRY_REPLY_S": "2.5",
            "HEADRACE_DURABILITY": "D2",
        },
        service="tool-registry",
    )
    assert (config.tenant, config.reply_s, config.durability) == ("acme", 2.5, "D2")
    assert config.read_roots == (Path("/a"), Path("/b"))


def test_a_value_may_lie_in_a_file(tmp_path: Path) -> None:
    """So that nothing secret needs to be in the environment. A knob whose own name ends so is itself."""
    path = tmp_path / "creds"
    path.write_text("secret\n")
    environ = {"HEADRACE_NATS_CREDS_FILE": str(path), "HEADRACE_PRICES_FILE": str(path)}
    config = load(Config, environ, service="monitor")
    assert (config.nats_creds, config.prices_file) == ("secret", path)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"HEADRACE_TENNANT": "x"}, "HEADRACE_TENNANT: unknown name; did you mean HEADRACE_TENANT?"),
        ({"HEADRACE_MONITOR_REPLY": "1"}, "did you mean HEADRACE_MONITOR_REPLY_S?"),
        ({"HEADRACE_METRICS_PORT": "99999"}, "HEADRACE_METRICS_PORT: Input should be less than"),
        ({"HEADRACE_MONITOR_REPLY_S": "inf"}, "HEADRACE_MONITOR_REPLY_S: Input should be less than"),
        ({"HEADRACE_DURABILITY": "D9"}, "HEADRACE_DURABILITY: Input should be"),
        ({"HEADRACE_NATS_CREDS_FILE": "/nowhere/x"}, "HEADRACE_NATS_CREDS_FILE: cannot read /nowhere/x"),
        ({"HEADRACE_TENANT": "a", "HEADRACE_TENANT_FILE": "/nowhere/x"}, "HEADRACE_TENANT_FILE: given twice"),
    ],
)
def test_what_is_wrong_is_named_with_its_source(environ: dict[str, str], said: str) -> None:
    """A misspelt knob stops the start: one that silently does nothing is worse."""
    with pytest.raises(ConfigError) as refused:
        load(Config, environ, service="monitor")
    assert said in str(refused.value)
    assert refused.value.exit_code == 78


def test_all_problems_are_told_at_once() -> None:
    """Nobody mends one, starts, and meets the next."""
    with pytest.raises(ConfigError) as refused:
        load(Config, {"HEADRACE_A": "", "HEADRACE_HTTP_PORT": "x", "HEADRACE_TENANT": "a b"}, service="monitor")
    assert len(str(refused.value).splitlines()) == 3


def test_a_wrong_value_is_not_repeated() -> None:
    """It may be a secret in the wrong place."""
    with pytest.raises(ConfigError) as refused:
        load(Config, {"HEADRACE_NATS_URL": "hunter2"}, service="monitor")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "name", ["HEADRACE_CACHE", "HEADRACE_NATS_VERSION", "HEADRACE_CRASH", "HEADRACE_SCHEDULER_LIMIT"]
)
def test_names_of_others_are_let_through(name: str) -> None:
    """The container tools and other services read the same environment; each service checks its own names."""
    assert load(Config, {name: "1"}, service="monitor") == Config()
