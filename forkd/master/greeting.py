"""What does somebody read who just typed `forkd run`, without any configuration?"""

from __future__ import annotations

import forkd
from forkd.config.load import LoadedConfig
from forkd.config.schema import Maildir


def first_minute(loaded: LoadedConfig, address: str) -> str:
    """Where to send mail (`address` is listened on), where it will be, how it ends."""
    config = loaded.config
    domain = next(reversed(config.domain), "localhost")
    plugins = ", ".join(plugin.name for plugin in loaded.plugins) or "none"
    local = config.transport.get("local")
    where = config.server.data_dir / local.path if isinstance(local, Maildir) else "nowhere (discard)"
    return (
        f"\n  forkd {forkd.__version__} takes mail on {address} for {', '.join(config.domain)}\n"
        f"  plugins, each in a sandbox: {plugins}\n"
        f"  mail arrives in {where}\n"
        f"  try:   swaks --server {address} --to user@{domain}\n"
        f"  stop:  Ctrl-C, or `forkd stop` in this folder\n"
    )
