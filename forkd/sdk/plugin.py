"""What is a plugin, and how is one loaded? The table of hooks that `plugin_init` returns.

A plugin's modules are loaded from their sources, never from __pycache__: what lies there may have been
compiled from anything, and what the admin can read, and forkd's hash is of, are the sources.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib import _bootstrap_external as _files  # importlib.machinery would be one module more

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any

    Hook = Callable[..., Any]

ARGUMENTS = {
    "connect": ("session",),
    "helo": ("session", "name"),
    "auth": ("session", "user", "secret"),
    "mail": ("session", "sender"),
    "rcpt": ("session", "recipient"),
    "data": ("session", "envelope"),
    "message": ("session", "envelope", "message"),
    "disconnect": ("session",),
}
"""Every hook, in a session's order, and what it is called with."""


class PluginError(Exception):
    """The plugin cannot be used as it is; the text is for its author."""


class SettingsError(PluginError, ValueError):
    """plugin_init raised ValueError: what the admin wrote is wrong, and the text is for him."""

    phase = "settings"
    """As a zygote's report has it (PROTOCOL.md)."""


class Plugin:
    """The hooks of a plugin, by name; those left out are never called and cost nothing.

    name    set by load(): the module's, by which a log line tells the members of a group apart.
    Raises PluginError when a hook is no function or takes other arguments than the hook gives.
    """

    __slots__ = ("hooks", "name")

    def __init__(
        self,
        *,
        connect: Hook | None = None,
        helo: Hook | None = None,
        auth: Hook | None = None,
        mail: Hook | None = None,
        rcpt: Hook | None = None,
        data: Hook | None = None,
        message: Hook | None = None,
        disconnect: Hook | None = None,
    ) -> None:
        given = {
            "connect": connect,
            "helo": helo,
            "auth": auth,
            "mail": mail,
            "rcpt": rcpt,
            "data": data,
            "message": message,
            "disconnect": disconnect,
        }
        self.name = ""
        self.hooks: dict[str, Hook] = {name: hook for name, hook in given.items() if hook is not None}
        for name, hook in self.hooks.items():
            _check_arguments(name, hook)

    def __repr__(self) -> str:
        return f"Plugin({', '.join(self.hooks)})"


class _FromSource(_files.SourceFileLoader):
    """Compiles the source each time; neither reads nor writes __pycache__."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _real(path: str) -> str:
    """Where links lead; behind a filter that lets nobody read them, the path as it is."""
    try:
        return os.path.realpath(path)
    except OSError:
        return os.path.abspath(path)  # noqa: PTH100 - as in load()


class _Sources:
    """Before Python's own finder on sys.meta_path: gives modules that lie in plugins' folders _FromSource.

    What lies in a folder of libraries, e.g. a virtual environment in a plugin's folder, is not its source.
    """

    def __init__(self) -> None:
        self._folders: tuple[str, ...] = ()
        self._libraries: tuple[str, ...] = ()

    def add(self, folder: str) -> None:
        """All modules in there from now on."""
        if self not in sys.meta_path:
            finders = list(sys.meta_path)
            at = finders.index(_files.PathFinder) if _files.PathFinder in finders else 0
            sys.meta_path.insert(at, self)
        own = _real(os.fspath(folder)) + "/"
        if own not in self._folders:
            known = [_real(entry) + "/" for entry in sys.path if entry]
            self._libraries += tuple(entry for entry in known if entry != own and entry.startswith(own))
            self._folders += (own,)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As Python's own finder does, but for the loader."""
        spec = _files.PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is _files.SourceFileLoader:
            file = _real(spec.loader.path)
            if file.startswith(self._folders) and not file.startswith(self._libraries):
                spec.loader = _FromSource(spec.loader.name, spec.loader.path)
        return spec


_sources = _Sources()


def load(folder: str | os.PathLike[str], module: str, settings: Mapping[str, Any]) -> Plugin:
    """Import the plugin's module and call its `plugin_init(settings)`.

    folder    the plugin's own; modules beside the named one can be imported by it.
    module    the file's name in it, e.g. "block_senders.py".
    Raises    PluginError with a text for the author; SettingsError, which is a ValueError too, when
              plugin_init raises ValueError with a text; what else the plugin raises passes through.
    """
    folder = os.path.abspath(folder)  # noqa: PTH100 - pathlib would cost every sandbox its pages
    path = f"{folder}/{module}"
    name = module.removesuffix(".py")
    if not name or name == module:
        raise PluginError(f"{path} is no Python module")
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, path))
    assert spec is not None and spec.loader is not None
    _sources.add(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    try:
        spec.loader.exec_module(loaded)
    except FileNotFoundError as error:
        if error.filename == path:
            raise PluginError(f"{path} does not exist") from None
        raise
    init = getattr(loaded, "plugin_init", None)
    if not callable(init):
        raise PluginError(f"{path} has no function plugin_init(settings)")
    try:
        plugin = init(dict(settings))
    except UnicodeError:
        raise  # a file's octets or a codec's: no text for an admin
    except ValueError as error:
        if not str(error):
            raise
        raise SettingsError(str(error)) from error
    if not isinstance(plugin, Plugin):
        raise PluginError(f"{path}: plugin_init must return a Plugin, not {type(plugin).__name__}")
    plugin.name = name
    return plugin


def check_hooks(plugin: Plugin, declared: frozenset[str]) -> None:
    """Raise PluginError unless the code has exactly the hooks that the manifest declares."""
    have = frozenset(plugin.hooks)
    if missing := sorted(declared - have):
        raise PluginError(f"plugin.toml declares {_listed(missing)}, which plugin_init does not give")
    if unknown := sorted(have - declared):
        raise PluginError(f"plugin_init gives {_listed(unknown)}, which plugin.toml does not declare")


def _listed(hooks: list[str]) -> str:
    return ("hook " if len(hooks) == 1 else "hooks ") + ", ".join(hooks)


def _check_arguments(name: str, hook: Hook) -> None:
    if not callable(hook):
        raise PluginError(f"hook {name} must be a function, not {type(hook).__name__}")
    # By hand where it is a plain function or method: `inspect` would be a quarter of the zygote's imports.
    function = getattr(hook, "__func__", hook)
    code = getattr(function, "__code__", None)
    if code is None or code.co_flags & 0x04:  # CO_VARARGS: takes any number
        return
    takes = code.co_argcount - (function is not hook)
    needs = takes - len(getattr(function, "__defaults__", None) or ())
    names = ARGUMENTS[name]
    if not needs <= len(names) <= takes:
        called = f"{name}({', '.join(names)})"
        raise PluginError(f"hook {name} is called as {called}, but this one takes {takes} arguments")
