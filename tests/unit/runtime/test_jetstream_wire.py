"""What the server says is read right, in both forms it has."""

import inspect

import pytest
from nats.aio.client import Client

from headrace.contracts.errors import (
    ConfigError,
    ConsumerGoneError,
    DataError,
    HeadraceError,
    NotFoundError,
    StorageFullError,
    TerminalError,
    UnavailableError,
)
from headrace.runtime import jetstream_wire as wire


def test_both_forms_of_an_acknowledgement_subject() -> None:
    """The second has domain and account hash, and a random token at the end."""
    expected = (3, 120, 7, 1_700_000_000_123, 42)
    assert wire.delivery_info(b"$JS.ACK.HR_RUNS_0.EXEC-tool.3.120.7.1700000000123456789.42") == expected
    second = b"$JS.ACK.hub.AbCdEf.HR_RUNS_0.EXEC-tool.3.120.7.1700000000123456789.42.x9"
    assert wire.delivery_info(second) == expected
    assert wire.delivery_info(second.rpartition(b".")[0]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-25T04:30:00.123456789Z", 1795581000123),
        ("2026-11-25T04:30:00.1Z", 1795581000100),
        ("2026-11-25T04:30:00Z", 1795581000000),
        ("2026-11-25T04:30:00.0009Z", 1795581000000),
    ],
)
def test_times_are_cut_off_to_milliseconds(text: str, expected: int) -> None:
    """As the times of deliveries are."""
    assert wire.time_ms(text) == expected


def test_status_lines_and_headers() -> None:
    """A status may come with fields, fields without a status."""
    raw = b"NATS/1.0 409 Message Size Exceeds MaxBytes\r\nNats-Pending-Messages: 3\r\n\r\n"
    assert wire.status_of(raw) == (409, "Message Size Exceeds MaxBytes")
    assert wire.parse_headers(raw) == {"Nats-Pending-Messages": "3"}
    assert wire.status_of(b"NATS/1.0\r\nA: b\r\n\r\n") == (0, "")
    assert wire.status_of(b"") == (0, "")
    headers = wire.RawHeaders("NATS/1.0\r\nA: b:c\r\nÄ: x\r\nno colon\r\nU: ü\r\n\r\n".encode())
    assert headers["A"] == "b:c"
    assert headers["U"] == "ü"
    assert headers == dict(headers)
    assert len(headers) == 3


@pytest.mark.parametrize(
    ("code", "err_code", "kind"),
    [
        (503, 10077, StorageFullError), (500, 10047, StorageFullError), (503, 10039, ConfigError),
        (404, 10059, NotFoundError), (404, 10014, ConsumerGoneError), (400, 10054, DataError),
        (503, 10008, UnavailableError), (400, 10100, TerminalError), (500, 10052, ConfigError),
    ],
)  # fmt: skip
def test_errors_become_ours(code: int, err_code: int, kind: type[HeadraceError]) -> None:
    """Retryable or terminal is decided here."""
    error = wire.error_from(wire.ApiError(code=code, err_code=err_code, description="why"), what="X")
    assert type(error) is kind
    assert str(error).startswith("X: why")


def test_what_we_replace_in_the_library_is_there() -> None:
    """The connection overrides these: another release of nats-py must be looked at before it is used."""
    assert list(inspect.signature(Client._process_msg).parameters) == [
        "self", "sid", "subject", "reply", "data", "headers"
    ]  # fmt: skip
    for name in ("_process_err", "_process_op_err", "_process_pong"):
        assert inspect.iscoroutinefunction(getattr(Client, name))
    for name in ("_pending", "_pending_data_size", "_flush_queue", "_subs", "_sid", "_pongs", "_transport"):
        assert hasattr(Client(), name)
