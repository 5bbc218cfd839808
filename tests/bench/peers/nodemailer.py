"""nodemailer's smtp-server: a library for Node, one event loop, no queue and no plugins of its own."""

from __future__ import annotations

from tests.bench.peers import cache
from tests.bench.servers import Server, program


class Nodemailer(Server):
    """Workload A. Its wait of 100 ms before the greeting is taken out, else S=1 would be that wait."""

    name = "nodemailer smtp-server"

    def launch(self) -> None:
        script = cache.PROGRAMS / "nodemailer_server.js"
        self.running.start(program("node"), script, cache.npm("smtp-server"), str(self.port))

    @classmethod
    def version(cls) -> str:
        found = cache.npm_version("smtp-server")
        return f"nodemailer smtp-server {found}" if found else ""
