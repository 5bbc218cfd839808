"""What does a command raise when it cannot do what was asked?"""

from __future__ import annotations

from forkd.exits import Exit


class CommandFailed(Exception):  # noqa: N818 - it is the command's outcome, not a defect
    """Printed as `forkd: <message>` and `  help: <hint>`; the process ends with `status`."""

    def __init__(self, message: str, *, hint: str = "", status: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.status = status
