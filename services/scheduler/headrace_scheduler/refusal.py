"""A command that is refused for more than one reason."""

from headrace.contracts.errors import TerminalError
from headrace.contracts.failure import Failure


class RefusedError(TerminalError):
    """A command is refused for one or more reasons."""

    code = "refused"

    def __init__(self, reasons: tuple[Failure, ...]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reason.message for reason in reasons))
