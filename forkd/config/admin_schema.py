"""Who may ask a running forkd what? The table of forkd.toml about the control socket."""

from __future__ import annotations

from forkd.config.table import Table


class Admin(Table, frozen=True):
    """[admin]: who has which role on the control socket, beside root and the user that forkd runs as. Each
    entry is a user's name, "%group", or a number: a uid, "%gid"."""

    view: tuple[str, ...] = ()
    """May look: status, sessions, queue, top, explain. It shows addresses of clients and of mail."""
    operate: tuple[str, ...] = ()
    """May also do what mail survives and a client only notices: flush, hold, release, kick."""
    admin: tuple[str, ...] = ()
    """May do everything: remove and bounce mail, stop and drain. Nobody has a role that is not given."""
