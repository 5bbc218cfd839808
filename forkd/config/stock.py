"""Where do the plugins and the sample configuration that come with forkd lie?

In a wheel under forkd/_share (pyproject.toml puts them there), in a checkout beside the package.
"""

from __future__ import annotations

from pathlib import Path

import forkd

_PACKAGE = Path(forkd.__file__).resolve().parent
_WHEEL = _PACKAGE / "_share"
SHARE: Path = _WHEEL if _WHEEL.is_dir() else _PACKAGE.parent

PLUGINS: Path = SHARE / "plugins"
"""One folder per stock plugin."""
SAMPLE: Path = SHARE / "etc" / "forkd.toml"
"""Every key with its default and its reason, commented out."""
ENTRIES: Path = SHARE / "etc" / "plugins.d"
"""Entries in force when there is no configuration file: the same files an admin copies to begin with."""


def stock_plugins() -> list[str]:
    """Names of the plugins that come with forkd."""
    return sorted(manifest.parent.name for manifest in PLUGINS.glob("*/plugin.toml"))
