"""How does a zygote load a Python plugin, and what handles its sandboxes' frames?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Loaded with this module, before the zygote confines itself: it is our code, and the folder
# that holds it can only be searched until then.
from forkd.sdk import plugin, runner


def load(spec: dict[str, Any]) -> Callable[[bytes, int | None], bytes]:
    """Import the plugin, call its plugin_init, warm the interpreter; the runner's handle."""
    loaded = plugin.load(spec["folder"], spec["module"], spec["settings"])
    if spec["hooks"]:
        plugin.check_hooks(loaded, frozenset(spec["hooks"]))
    runner.warm()
    return runner.Runner(loaded, spec["reads"]).handle
