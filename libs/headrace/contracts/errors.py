"""Everything that can go wrong, as one tree.

HeadraceError
├── RetryableError       trying again later may help; nothing is known to be wrong with the request
│   ├── AppendConflictError   ├── UnavailableError   ├── StorageFullError   └── AttemptError(retryable=True) …
├── UnknownOutcomeError  it may have happened: read back before doing anything else
└── TerminalError        the same request will fail the same way
    ├── DefinitionError   ├── ConfigError   ├── DeniedError   ├── CorruptError   └── …

The consumer looks at the middle nodes only; people look at `code`, the values and the next thing to do.
"""

from typing import ClassVar

from headrace.contracts import names
from headrace.contracts.failure import Failure


class HeadraceError(Exception):
    """Root of the tree. Subclasses have a stable `code` and the exit code a command ends with."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = names.EXIT_BUG
    retryable: ClassVar[bool] = False

    def failure(self) -> Failure:
        """The same error as data for the wire; causes are listed outermost first, each as text."""
        causes: list[str] = []
        cause = self.__cause__
        while cause is not None and len(causes) < 8:  # a longer chain is a loop or noise
            causes.append(f"{type(cause).__name__}: {cause}"[:500])
            cause = cause.__cause__
        return Failure(code=self.code, message=str(self)[:2000], retryable=self.retryable, causes=tuple(causes))


class RetryableError(HeadraceError):
    """Trying again later may help."""

    retryable = True
    exit_code = names.EXIT_TRY_LATER


class TerminalError(HeadraceError):
    """The same request will fail the same way."""


class UnknownOutcomeError(HeadraceError):
    """It may have happened. Read back until it is known; never treat it as failed."""

    code = "outcome_unknown"
    exit_code = names.EXIT_TRY_LATER

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: no answer in time; it may still be stored, so read it back")


class AppendConflictError(RetryableError):
    """The broker refused the expected sequence. Not yet "lost the race": read the scope's last message, compare ids."""

    code = "append_conflict"

    def __init__(self, *, subject: str, expected_seq: int, found: str) -> None:
        self.subject, self.expected_seq = subject, expected_seq
        super().__init__(f"{subject}: expected last sequence {expected_seq}; the broker says: {found}")


class UnavailableError(RetryableError):
    """The broker or a service did not answer, or is not connected. Nothing was sent."""

    code = "unavailable"
    exit_code = names.EXIT_UNAVAILABLE


class StorageFullError(RetryableError):
    """The stream refuses to grow (error 10077). Free space or raise max_bytes; accepted work waits."""

    code = "storage_full"


class ConsumerGoneError(RetryableError):
    """The consumer no longer exists on the server. Create it again from the position the state implies."""

    code = "consumer_gone"


class DefinitionError(TerminalError):
    """A pipeline file is refused. `problems` are complete lines `file:line:column: code text; hint`."""

    code = "definition_invalid"
    exit_code = names.EXIT_DATA

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class DataError(TerminalError):
    """Input data does not fit what was declared."""

    code = "data_invalid"
    exit_code = names.EXIT_DATA


class MalformedMessageError(TerminalError):
    """Bytes on a subject are not the message that belongs there. They are parked, never dropped."""

    code = "malformed_message"
    exit_code = names.EXIT_DATA


class NewerSchemaError(TerminalError):
    """A message of a type or version this release does not know. A decider stalls the run; a projection counts it."""

    code = "upgrade_required"
    exit_code = names.EXIT_CONFIG


class CorruptError(TerminalError):
    """Stored history contradicts itself. Stop and look; never start afresh."""

    code = "log_corrupted"
    exit_code = names.EXIT_DATA


class NotFoundError(TerminalError):
    """What was named does not exist here."""

    code = "not_found"
    exit_code = names.EXIT_DATA


class ConflictError(TerminalError):
    """What was asked contradicts the present state, e.g. another version, a finished run, a key used otherwise."""

    code = "conflict"
    exit_code = names.EXIT_DATA


class TooLargeError(TerminalError):
    """A request, value or answer is over a limit, which the text names; like HTTP 413."""

    code = "too_large"
    exit_code = names.EXIT_DATA


class ConfigError(TerminalError):
    """Configuration is wrong or contradicts the server. Names the key, the value's source and the remedy."""

    code = "config_invalid"
    exit_code = names.EXIT_CONFIG


class DeniedError(TerminalError):
    """Credentials or permissions do not allow it."""

    code = "denied"
    exit_code = names.EXIT_DENIED


class InputFileError(TerminalError):
    """A file named on the command line cannot be read. Names path and reason."""

    code = "no_input"
    exit_code = names.EXIT_NO_INPUT


class ExpressionError(TerminalError):
    """An expression has no value: `expr_eval`, `expr_cost` or `type_mismatch`. A fact about the step, not our bug."""

    code = "expr_eval"

    def __init__(self, message: str, *, code: str = "expr_eval") -> None:
        self.own_code = code
        super().__init__(message)

    def failure(self) -> Failure:
        """As data, under its own code."""
        return Failure(code=self.own_code, message=str(self)[:2000], retryable=False)


class AttemptError(HeadraceError):
    """One attempt of a step failed. `code` is per instance; whether to retry is data, decided where it is raised.

    Args:
        retry_after_ms: A floor for the next attempt that the other side asked for.
    """

    def __init__(self, code: str, message: str, *, retryable: bool, retry_after_ms: int = 0) -> None:
        self.attempt_code, self.attempt_retryable, self.retry_after_ms = code, retryable, retry_after_ms
        super().__init__(message)

    def failure(self) -> Failure:
        """As data for the report."""
        plain = super().failure()
        return Failure(
            code=self.attempt_code,
            message=plain.message,
            retryable=self.attempt_retryable,
            retry_after_ms=self.retry_after_ms,
            causes=plain.causes,
        )
