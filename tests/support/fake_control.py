"""What a daemon's control socket answers, told by a test: for the command line's own behaviour."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any


class FakeControl:
    """Listens on <data_dir>/run/control.sock; `answer` maps each request to bytes, None hangs up."""

    def __init__(self, data_dir: Path, answer: Callable[[dict[str, Any]], bytes | None]) -> None:
        self.path = data_dir / "run" / "control.sock"
        self.requests: list[dict[str, Any]] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> FakeControl:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                request = json.loads(lines.readline())
                self.requests.append(request)
                answer = self._answer(request)
                if answer is not None:
                    connection.sendall(answer)


def queued(**fields: Any) -> dict[str, Any]:
    """The result of a request about the queue, with what `fields` say (rpc.messages.QueueAnswer)."""
    empty: dict[str, Any] = {
        "entries": [], "count": 0, "more": False, "after": "", "seen": 0, "left": [], "not_done": [],
        "counts": [], "octets": 0, "error": "",
    }  # fmt: skip
    return {**empty, **fields}


def ok(result: Any) -> bytes:
    """The line of a success."""
    return json.dumps({"ok": True, "result": result}).encode() + b"\n"
