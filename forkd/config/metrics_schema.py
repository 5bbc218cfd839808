"""Where are metrics read? The table of forkd.toml about admin's HTTP server."""

from __future__ import annotations

from forkd.config.table import Table


class Metrics(Table, frozen=True):
    """[metrics]: numbers for Prometheus and answers for health checks, over HTTP. No address of a client and
    no mail is in them; every user of this machine may read them."""

    listen: str = "auto"
    """auto: a unix socket, metrics.sock in run/ of server.data_dir. Or "HOST:PORT", as in "127.0.0.1:9252";
    or the absolute path of a unix socket; or empty: not at all, and then nothing is counted."""
