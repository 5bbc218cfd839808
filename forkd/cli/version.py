"""forkd version: which versions of what are running here?"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import Final

import click

import forkd
from forkd.cli.lines import tell
from forkd.cli.options import json_option, print_json
from forkd.config.schema import API_VERSION

BUILT_WITH: Final = ("click", "msgspec", "pyseccomp", "rich", "structlog", "uvloop")


@click.command()
@json_option
def version(as_json: bool) -> int:
    """Versions of forkd, Python, the kernel and the libraries it is built with."""
    libraries = {name: importlib.metadata.version(name) for name in BUILT_WITH}
    if as_json:
        print_json(
            {
                "forkd": forkd.__version__,
                "plugin_api": API_VERSION,
                "python": platform.python_version(),
                "kernel": platform.release(),
                "libraries": libraries,
            }
        )
        return 0
    tell(f"forkd {forkd.__version__}, plugin API {API_VERSION}")
    tell(f"Python {platform.python_version()} ({sys.executable}), Linux {platform.release()}")
    tell(", ".join(f"{name} {number}" for name, number in libraries.items()))
    return 0
