"""Secrets: read from files, given to whom they belong, hidden in whatever form they come back."""

import base64
import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from headrace.contracts import events as ev
from headrace.contracts.codec import inline
from headrace.contracts.errors import AttemptError, ConfigError
from headrace.contracts.failure import Failure
from headrace_step_executor.secrets import CHARS_MIN, SECRETS_MAX, Secrets

CANARY = 'kx/9+Q"ü\\z 7&Tn'
"""With everything that is written otherwise in JSON, in URLs and in base64."""


def secrets(folder: Path, **values: str) -> Secrets:
    """Of a directory with these files."""
    for name, value in values.items():
        (folder / name).write_text(value, encoding="utf-8")
    made = Secrets(folder, tenant="default")
    made.load()
    return made


def test_names_are_told_and_values_are_given_to_their_own_tenant(tmp_path: Path) -> None:
    """By name; a value is read when it is taken, so a rotated one is the new one."""
    made = secrets(tmp_path, TOKEN="first-value\n", OTHER="other-value")
    (tmp_path / "..data").mkdir()  # as a mounted secret of a cluster has it
    made.load()
    assert made.names == ("default/OTHER", "default/TOKEN")
    assert made.take("default", ("TOKEN",)) == {"TOKEN": "first-value"}
    (tmp_path / "TOKEN").write_text("second-value")
    assert made.take("default", ("TOKEN",)) == {"TOKEN": "second-value"}
    assert made.hide_text("first-value second-value") == "[secret TOKEN] [secret TOKEN]"
    for tenant, name in (("default", "MISSING"), ("another", "TOKEN"), ("default", "../TOKEN")):
        with pytest.raises(AttemptError, match=f"the secret `{name}` is not known") as caught:
            made.take(tenant, (name,))
        assert caught.value.failure().code == "secret_missing"


def test_without_a_directory_there_are_none() -> None:
    """And nothing is hidden."""
    made = Secrets(None, tenant="default")
    made.load()
    assert (made.on, made.names, made.hide_text("x")) == (False, (), "x")
    with pytest.raises(AttemptError, match="`A` is not known"):
        made.take("default", ("A",))


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("SHORT", b"x" * (CHARS_MIN - 1), "at least 8 characters"),
        ("LONG", b"x" * (16 * 1024 + 1), "at most 16384 bytes"),
        ("BYTES", b"canary\xff\xfe-canary", "not UTF-8"),
        ("not-a-name", b"canary-value", "letters, digits and `_`"),
    ],
)
def test_a_file_that_is_no_secret_is_refused_without_a_word_of_it(
    tmp_path: Path, name: str, data: bytes, why: str
) -> None:
    """At start, by its path."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=why) as caught:
        Secrets(tmp_path, tenant="default").load()
    assert name in str(caught.value) and "canary" not in str(caught.value) and caught.value.__cause__ is None


def test_too_many_and_no_directory_are_refused(tmp_path: Path) -> None:
    """With what is wrong."""
    with pytest.raises(ConfigError, match="cannot read"):
        Secrets(tmp_path / "gone", tenant="default").load()
    for number in range(SECRETS_MAX + 1):
        (tmp_path / f"S{number}").write_text("12345678")
    with pytest.raises(ConfigError, match="at most 256"):
        Secrets(tmp_path, tenant="default").load()


FORMS: dict[str, Any] = {
    "plain": lambda v: v,
    "json": lambda v: json.dumps({"a": v}, ensure_ascii=False),
    "json in ascii": lambda v: json.dumps([v]),
    "json in json": lambda v: json.dumps({"body": json.dumps({"a": v})}),
    "slashes escaped": lambda v: json.dumps(v).replace("/", "\\/"),
    "url": lambda v: "https://example.test/?a=" + urllib.parse.quote(v, safe=""),
    "url path": lambda v: urllib.parse.quote(v),
    "form": lambda v: urllib.parse.urlencode({"a": v}),
    "hex": lambda v: v.encode().hex(),
    "base64": lambda v: base64.b64encode(v.encode()).decode(),
    "base64 of a login": lambda v: base64.b64encode(f"user:{v}".encode()).decode(),
    "base64 of another login": lambda v: base64.b64encode(f"u2:{v}:more".encode()).decode(),
    "base64 for urls": lambda v: base64.urlsafe_b64encode(f"u:{v}".encode()).decode(),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_invariant_i21_no_form_of_a_secret_gets_through(tmp_path: Path, form: str) -> None:
    """Text and bytes; what stands around it stays."""
    made = secrets(tmp_path, CANARY=CANARY)
    told = f"before {FORMS[form](CANARY)} after"
    for shown in (made.hide_text(told), made.hide_bytes(told.encode()).decode()):
        assert shown.startswith("before ") and shown.endswith(" after") and "[secret CANARY]" in shown
        assert made.hide_text(shown) == shown
        assert not made.found_in(shown.encode())
    assert made.found_in(told.encode()) == "CANARY"


def test_what_is_hidden_in_json_is_json_and_a_struct_is_the_same_struct(tmp_path: Path) -> None:
    """Results and failures of attempts, whole."""
    made = secrets(tmp_path, CANARY=CANARY)
    given = ev.Succeeded(decision="d", offer=1, output=inline({CANARY: [CANARY, 1.0]}), files={CANARY: "sha"})
    shown = made.hidden(given)
    assert shown.output == inline({"[secret CANARY]": ["[secret CANARY]", 1.0]}) and shown.files == {
        "[secret CANARY]": "sha"
    }
    failed = made.hidden(Failure(code="denied", message=f"401 for {CANARY}", causes=(f"E: {CANARY!r}", "x")))
    assert failed.message == "401 for [secret CANARY]" and "Q" not in failed.causes[0]
    untouched = ev.Succeeded(decision="d", offer=1, output=inline({"a": 1}))
    assert made.hidden(untouched) is untouched


def test_long_lines_of_a_key_are_hidden_one_by_one_and_the_longest_secret_first(tmp_path: Path) -> None:
    """A parser quotes the line that it dislikes; a secret may be the beginning of another."""
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nshort\n-----END KEY-----\n"
    made = secrets(tmp_path, KEY=key, PART="prefix-secret", WHOLE="prefix-secret-and-more")
    assert made.hide_text("bad line MIIEvQIBADANBgkqhkiG9w0BAQEFAASC") == "bad line [secret KEY]"
    assert made.hide_text("prefix-secret-and-more prefix-secret") == "[secret WHOLE] [secret PART]"
