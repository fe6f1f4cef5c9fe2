"""Secrets that pipelines name: read where they are used, told to nobody, hidden in everything that leaves.

A secret is a file of `HEADRACE_SECRETS_DIR`, its name the secret's. Only runs of this executor's own tenant are given
any. Files are read again for every attempt, so that a rotated secret needs no restart; what was ever read stays hidden
as long as the process lives, in the forms in which it usually comes back: as it is, in JSON, in URLs, in base64 and
hex.
"""

import base64
import json
import logging
import os
import re
import threading
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from headrace.contracts.codec import encode, encode_value
from headrace.contracts.errors import AttemptError, ConfigError

log = logging.getLogger("headrace.executor")

NAME_RE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
SECRETS_MAX: Final = 256
BYTES_MAX: Final = 16 * 1024
"""Of one secret: a certificate with its chain. With all its forms it takes twenty times that."""
CHARS_MIN: Final = 8
"""What is shorter is found by chance in ordinary text, and hiding it would say what it is."""
LINE_CHARS_MIN: Final = 24
"""Lines of a secret of several are hidden alone when they are so long."""
HIDDEN_MAX: Final = 4 * SECRETS_MAX
"""Values that are kept hidden; beyond that the oldest, rotated away long ago, are forgotten."""
REFRESH_S: Final = 5.0
"""How soon a new secret is known by name."""
_FIRST_WHOLE: Final = (0, 2, 3)
"""Of base64 after so many other bytes: the first character that the secret alone decides."""
T = TypeVar("T")


class Secrets:
    """What this executor has. `load` reads the directory, `take` gives values to an attempt.

    Args:
        folder: None where there are no secrets.
        tenant: Whose they are.
    """

    def __init__(self, folder: Path | None, *, tenant: str) -> None:
        self._folder, self._tenant = folder, tenant
        self._changing = threading.Lock()  # attempts read theirs in threads
        self._hidden: dict[str, str] = {}
        """Value → name, in the order in which they were read."""
        self._forms: tuple[tuple[str, str], ...] = ()
        """(what is hidden, what stands there instead), the longest first."""
        self.names: tuple[str, ...] = ()
        """`<tenant>/<name>` of each: beats advertise them."""

    @property
    def on(self) -> bool:
        """Whether there is a directory to read."""
        return self._folder is not None

    def load(self) -> None:
        """Read all of them. Blocks.

        Raises:
            ConfigError: the directory cannot be read, holds too many, or a file is no secret; says which, never what.
        """
        if self._folder is None:
            return
        try:
            found = sorted(name for name in os.listdir(self._folder) if not name.startswith("."))
        except OSError as error:
            msg = f"cannot read {self._folder}: {error.strerror}"
            raise ConfigError(msg) from error
        if len(found) > SECRETS_MAX:
            msg = f"{self._folder} holds {len(found)} files; at most {SECRETS_MAX} secrets"
            raise ConfigError(msg)
        self._hide({_read(self._folder, name): name for name in found})
        self.names = tuple(f"{self._tenant}/{name}" for name in found)

    def take(self, tenant: str, names: Iterable[str]) -> dict[str, str]:
        """Values by name, read now. Blocks.

        Raises:
            AttemptError: `secret_missing`, retryable: another executor may have it.
        """
        taken = {}
        for name in names:
            try:
                if self._folder is None or tenant != self._tenant or not NAME_RE.fullmatch(name):
                    raise FileNotFoundError
                taken[name] = _read(self._folder, name)
            except (FileNotFoundError, ConfigError) as error:
                msg = f"the secret `{name[:63]}` is not known to this executor"
                code = "secret_missing"
                raise AttemptError(code, msg, retryable=True) from (error if isinstance(error, ConfigError) else None)
        self._hide({value: name for name, value in taken.items()})
        return taken

    # --- hiding ----------------------------------------------------------------------------------------

    def _hide(self, values: dict[str, str]) -> None:
        with self._changing:
            if values.keys() <= self._hidden.keys():
                return
            self._hidden.update(values)
            while len(self._hidden) > HIDDEN_MAX:
                del self._hidden[next(iter(self._hidden))]
            forms = {form: f"[secret {name}]" for value, name in self._hidden.items() for form in _forms_of(value)}
            self._forms = tuple(sorted(forms.items(), key=lambda pair: (-len(pair[0]), pair)))

    def hide_text(self, text: str) -> str:
        """The text with the name of each secret in its place."""
        for form, mark in self._forms:
            if form in text:
                text = text.replace(form, mark)
        return text

    def hide_bytes(self, data: bytes) -> bytes:
        """As `hide_text`, of UTF-8; JSON stays JSON."""
        for form, mark in self._forms:
            if (wanted := form.encode()) in data:
                data = data.replace(wanted, mark.encode())
        return data

    def hidden(self, message: T) -> T:
        """As `hide_text`, of one of our structs."""
        if not self._forms:
            return message
        data = encode(message)
        clean = self.hide_bytes(data)
        return message if clean == data else msgspec.json.decode(clean, type=type(message))

    def found_in(self, data: bytes) -> str:
        """The name of a secret that these bytes hold; empty where there is none."""
        return next((mark[len("[secret ") : -1] for form, mark in self._forms if form.encode() in data), "")


def _read(folder: Path, name: str) -> str:
    """The value of a secret, without the newline at its end.

    Raises:
        ConfigError: it is none. FileNotFoundError.
    """
    where = folder / name
    if not NAME_RE.fullmatch(name):
        msg = f"{where}: a secret's name is made of letters, digits and `_`"
        raise ConfigError(msg)
    try:
        with (folder / name).open("rb") as file:
            data = file.read(BYTES_MAX + 1)
        value = data.decode().rstrip("\r\n")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        msg = f"{where}: {why}"
        raise ConfigError(msg) from None  # the cause of the second quotes what was read
    if len(value) < CHARS_MIN or len(data) > BYTES_MAX:
        msg = f"{where}: a secret has at least {CHARS_MIN} characters and at most {BYTES_MAX} bytes"
        raise ConfigError(msg)
    return value


def _written(text: str) -> set[str]:
    """A text as it stands between the quotes of JSON, in UTF-8 and in ASCII, and of Python."""
    plain, ascii_only = encode_value(text).decode()[1:-1], json.dumps(text)[1:-1]
    return {plain, ascii_only, plain.replace("/", "\\/"), ascii_only.replace("/", "\\/"), repr(text)[1:-1]}


def _forms_of(value: str) -> Iterator[str]:
    """How a value may come back."""
    lines = [line.strip() for line in value.splitlines()] if "\n" in value else []
    for text in (value, *(line for line in lines if len(line) >= LINE_CHARS_MIN)):
        yield text
        for written in _written(text):
            yield written
            yield from _written(written)  # such as JSON inside of JSON
    yield urllib.parse.quote(value, safe="")
    yield urllib.parse.quote(value)
    yield urllib.parse.quote_plus(value)
    data = value.encode()
    yield data.hex()
    yield data.hex().upper()
    for before, start in enumerate(_FIRST_WHOLE):
        whole = bytes(before) + data
        for encoder in (base64.b64encode, base64.urlsafe_b64encode):
            yield encoder(whole)[start : len(whole) * 8 // 6].decode()
