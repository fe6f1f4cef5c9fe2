"""Configuration: read once from the environment, checked as a whole, passed down.

A field `data_dir` of the shared settings is `HEADRACE_DATA_DIR`; a service's own field `reply_s` is
`HEADRACE_<SERVICE>_REPLY_S`. Each can also be given as `<NAME>_FILE`, the path of a file that holds the
value, so that nothing secret needs to be in the environment. A name that nobody knows is refused: a
misspelt knob that silently does nothing is worse than a service that does not start.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from headrace.contracts import names
from headrace.contracts.errors import ConfigError

PREFIX: Final = "HEADRACE_"
SERVICES: Final = ("scheduler", "step-executor", "tool-registry", "session-store", "monitor")
FOREIGN: Final = frozenset(
    PREFIX + name for name in ("CACHE", "LOCK", "CHUNK", "NATS_VERSION", "CRASH", "CRASH_FILE", "SOAK")
)
"""Of the container tools; the last three belong to tests alone: a crash point, and how often kill tests kill."""
FILE_BYTES_MAX: Final = 1024 * 1024


def _split_paths(value: Any) -> Any:
    return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value


class Settings(BaseModel):
    """What every service has. Services subclass it with their own knobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nats_url: str = Field(default="nats://127.0.0.1:4222", pattern=r"^(nats|tls)://.+")
    """Servers, comma separated. Loopback by default: nothing is exposed unless somebody says so."""
    nats_creds: str = ""
    """The text of a credentials file (usually given as HEADRACE_NATS_CREDS_FILE). Empty: none."""
    tenant: str = Field(default=names.TENANT_DEFAULT, pattern=r"^[A-Za-z0-9_-]{1,32}$")
    """A token of every subject."""
    durability: Literal["", "D0", "D1", "D2"] = ""
    """Refuse to start on storage weaker than this. Empty: take what there is and say so."""
    data_dir: Path = Path(".headrace")
    """Workspaces and, in local mode, the broker's files."""
    read_roots: Annotated[tuple[Path, ...], BeforeValidator(_split_paths)] = ()
    """Directories that tools may read besides the workspace, separated as PATH is. Services grant none by
    themselves."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is written."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Health and metrics over HTTP on loopback, or on `http_host`. 0: off."""
    http_host: str = "127.0.0.1"
    """Address that HTTP listens on. Pods set 0.0.0.0 and a NetworkPolicy."""
    http_port: int = Field(default=0, ge=0, le=65535)
    """The monitor's API and page. 0: off."""
    prices_file: Path | None = None
    """Prices of models, by name; they come before the shipped ones."""
    secrets_dir: Path | None = None
    """Directory of secret files that pipelines may name."""
    drain_s: float = Field(default=names.DRAIN_S, gt=0, le=3600)
    """How long work in flight may go on after SIGTERM. The pod's grace period is at least 10 s longer."""
    run_streams: int = Field(default=1, ge=1, le=32)
    """Number of run streams, as fixed when they were made."""


C = TypeVar("C", bound=Settings)


def load(kind: type[C], environ: Mapping[str, str], *, service: str) -> C:
    """The configuration of a service.

    Raises:
        ConfigError: an unknown name (with the nearest known one), a value out of its bounds, an unreadable
        file; all problems at once, each with its variable.
    """
    fields = {_variable(kind, field, service): field for field in kind.model_fields}
    problems: list[str] = []
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in FOREIGN:
            continue
        direct = fields.get(variable)
        by_file = fields.get(variable.removesuffix("_FILE")) if direct is None else None
        field = direct or by_file
        if field is None:
            if not _of_another_service(variable, service):
                problems.append(f"{variable}: unknown name{_hint(variable, fields)}")
        elif field in values:
            problems.append(f"{variable}: given twice, also by {sources[field]}")
        else:
            sources[field] = variable if by_file is None else f"{variable} (file {text})"
            values[field] = text if by_file is None else _read(variable, text, problems)
    try:
        config = kind.model_validate(values)
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            field = str(problem["loc"][0])
            source = sources.get(field, _variable(kind, field, service))
            problems.append(f"{source}: {problem['msg']}")
        raise ConfigError("\n".join(problems)) from None  # pydantic's own text would repeat values
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _variable(kind: type[Settings], field: str, service: str) -> str:
    own = "" if field in Settings.model_fields else service.upper().replace("-", "_") + "_"
    assert field in kind.model_fields, field
    return PREFIX + own + field.upper()


def _of_another_service(variable: str, service: str) -> bool:
    """One environment may configure all five services; each checks its own names."""
    return any(
        variable.startswith(f"{PREFIX}{other.upper().replace('-', '_')}_") for other in SERVICES if other != service
    )


def _hint(variable: str, fields: Mapping[str, str]) -> str:
    known = [*fields, *(name + "_FILE" for name in fields)]
    near = difflib.get_close_matches(variable, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _read(variable: str, path: str, problems: list[str]) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{variable}: cannot read {path}: {error}")
        return ""
    if len(text) > FILE_BYTES_MAX:
        problems.append(f"{variable}: {path} is larger than {FILE_BYTES_MAX} bytes")
    return text.rstrip("\n")
