"""How does start-up fail? With a status that callers can act upon, and a text that names the fix."""

from __future__ import annotations

from forkd.exits import Exit


class StartError(Exception):
    """forkd cannot start. Raised before READY=1 only.

    status  what the process exits with (exits.py)
    detail  more lines for a person, e.g. a plugin's traceback
    """

    def __init__(self, status: Exit, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.detail = detail
