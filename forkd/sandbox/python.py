"""How does a zygote load Python plugins, and what handles their sandboxes' frames?"""

from __future__ import annotations

import os

from forkd.sandbox import child, linux

# Loaded with this module, before the zygote confines itself: it is our code, and the folder
# that holds it can only be searched until then.
from forkd.sdk import plugin, runner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load(spec: dict[str, Any], *, control: Any, title: linux.Title) -> child.Forker:
    """Import each member, call its plugin_init, warm the interpreter; forks their common sandboxes.

    Whatever goes wrong is raised as it is; in a group with the name of the member whose fault it was.
    """
    members = spec["members"]
    plugins = []
    for index, member in enumerate(members):
        try:
            for earlier in members[:index]:
                _check_names(member, earlier)
            loaded = plugin.load(member["folder"], member["module"], member["settings"])
            if member["hooks"]:
                plugin.check_hooks(loaded, frozenset(member["hooks"]))
        except plugin.SettingsError as error:
            if len(members) > 1:
                raise plugin.SettingsError(f"member {member['name']}: {error}") from error
            raise
        except BaseException as error:
            if len(members) > 1:
                raise plugin.PluginError(
                    f"member {member['name']}: {type(error).__name__}: {error}"
                ) from error
            raise
        loaded.name = member["name"]
        plugins.append(loaded)
    runner.warm()
    granted = None
    if "broker" in spec:
        from forkd.sdk import capabilities  # noqa: PLC0415 - no other zygote has it

        capabilities.warm()
        granted = capabilities.Capabilities.brokered(spec["broker"])
    handle = runner.Runner(tuple(plugins), spec["reads"], granted).handle
    return child.Forker(spec, handle, control=control, title=title)


def _check_names(member: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Members share one table of modules: of two modules of one name, one member would get the other's.

    The modules named as the plugins themselves may be called alike: nobody imports those.
    """
    if member["folder"] == earlier["folder"]:
        return
    both = _modules(member["folder"]) & _modules(earlier["folder"])
    if member["module"] == earlier["module"]:
        both.discard(member["module"].removesuffix(".py"))
    if both:
        raise plugin.PluginError(
            f"it has a module {min(both)}, and so has member {earlier['name']}: rename one of them, or "
            f"give each plugin a sandbox of its own"
        )


def _modules(folder: str) -> set[str]:
    """What could be imported from there, but for tests and tools."""
    found = set()
    for name in os.listdir(folder):  # noqa: PTH208 - pathlib stays out of the zygote
        stem, dot, _ = name.partition(".")
        if name.endswith(".py") if dot else name.isidentifier() and _is_package(f"{folder}/{name}"):
            found.add(stem)
    return {stem for stem in found if stem not in ("conftest", "setup") and not stem.startswith("test")}


def _is_package(folder: str) -> bool:
    try:
        return "__init__.py" in os.listdir(folder)  # noqa: PTH208
    except OSError:
        return False
