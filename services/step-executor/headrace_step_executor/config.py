"""Every knob of the step executor."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator

from headrace.contracts import names
from headrace.contracts.errors import ConfigError
from headrace.runtime.config import Settings
from headrace_step_executor.secrets import Secrets
from headrace_step_executor.tools.addresses import allow_list


def _split_list(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


TextList = Annotated[tuple[str, ...], BeforeValidator(_split_list)]


class Config(Settings):
    """What an executor takes, and how much of it at a time."""

    drain_s: float = Field(default=names.EXECUTOR_DRAIN_S, gt=0, le=3600)
    """Long enough to save model calls that are paid for. The pod's grace period is at least 10 s longer."""
    queues: TextList = names.QUEUES
    """Work queues, comma separated. Those ending in `-ws` only where the workspaces are mounted."""
    tool_in_flight_max: int = Field(default=64, ge=1, le=10_000)
    """Orders of one `tool` queue in hand; most of them wait for something."""
    llm_in_flight_max: int = Field(default=32, ge=1, le=10_000)
    """Orders of one `llm` queue in hand: paid calls that a death of this process would repeat."""
    transform_in_flight_max: int = Field(default=32, ge=1, le=10_000)
    """Orders of one `transform` queue in hand: they use this process's own CPU."""
    threads: int = Field(default=16, ge=1, le=256)
    """For file operations and name look-ups. A hanging file system holds at most these."""
    render_workers: int = Field(default=2, ge=1, le=64)
    """Processes for large transforms at a time; as many as there are cores to spare."""
    model_in_flight_max: int = Field(default=32, ge=1, le=10_000)
    """Calls of one provider and model in flight in this process."""
    cassette_mode: Literal["replay", "record", "auto"] = "replay"
    """Whether `cassette/…` models answer from files, record what the real ones say, or do so where nothing is yet."""
    cassette_dir: Path | None = None
    """Where cassettes are recorded; read there too."""
    http_allow: TextList = ()
    """Besides public addresses `http.request` may reach these: `host:port` or a network, comma separated."""

    @field_validator("queues")
    @classmethod
    def _known_queues(cls, queues: tuple[str, ...]) -> tuple[str, ...]:
        for queue in queues:
            if queue.partition("-")[0] not in KINDS:
                message = f"{queue!r}: a queue is called after its kind, one of {', '.join(KINDS)}"
                raise ValueError(message)
        return queues

    @field_validator("http_allow")
    @classmethod
    def _readable_allow_list(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        allow_list(entries)
        return entries

    @field_validator("secrets_dir")
    @classmethod
    def _readable_secrets(cls, folder: Path | None) -> Path | None:
        try:
            Secrets(folder, tenant="").load()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return folder

    def in_flight_max(self, queue: str) -> int:
        """Orders of this queue that may be in hand."""
        kind = queue.partition("-")[0]
        bounds = {
            "tool": self.tool_in_flight_max,
            "llm": self.llm_in_flight_max,
            "transform": self.transform_in_flight_max,
        }
        return bounds[kind]

    def absolute_data_dir(self) -> Path:
        """The data directory, whatever the working directory becomes."""
        return self.data_dir.absolute()


KINDS: Final = ("llm", "tool", "transform")
