"""How is a compiled plugin of IndiMail's qmail-smtpd loaded and called? By ctypes, its ABI as it is compiled.

    PLUGIN *plugin_init(void)                      the entry symbol; its name can be another
    int mail_func(remote_ip, from, mesg)           offset 0 of PLUGIN; any of the three may be NULL
    int rcpt_func(remote_ip, from, rcpt, mesg)     8
    int data_func(local_host, remote_ip, remote_host, remote_info, mesg)      16

Strings are `char *` in the header of 2011 and `const char *` today, the same to a machine; `mesg` is a
`char **`.
"""

from __future__ import annotations

import ctypes
import os
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

RTLD_LAZY, RTLD_LOCAL, RTLD_DEEPBIND = 1, 0, 8
MODE = RTLD_LAZY | RTLD_LOCAL | RTLD_DEEPBIND
"""As qmail-smtpd: plugins bring copies of its support library with them, which must not meet each other."""

_MISSING = "cannot open shared object file"
_OFFSETS = {"mail_func": 0, "rcpt_func": 8, "data_func": 16}

_text = ctypes.c_char_p
_mesg = ctypes.POINTER(ctypes.c_void_p)
# CFUNCTYPE, not PYFUNCTYPE: a plugin that longjmps or sends signals must not meet a held interpreter lock.
PROTOTYPES = {
    "mail_func": ctypes.CFUNCTYPE(ctypes.c_int, _text, _text, _mesg),
    "rcpt_func": ctypes.CFUNCTYPE(ctypes.c_int, _text, _text, _text, _mesg),
    "data_func": ctypes.CFUNCTYPE(ctypes.c_int, _text, _text, _text, _text, _mesg),
}
_INIT = ctypes.CFUNCTYPE(ctypes.c_void_p)

_libc = ctypes.PyDLL(None)
_dlopen, _dlsym, _dlerror, _strnlen = _libc.dlopen, _libc.dlsym, _libc.dlerror, _libc.strnlen
_dlopen.restype, _dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
_dlsym.restype, _dlsym.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p)
_dlerror.restype, _dlerror.argtypes = ctypes.c_char_p, ()
_strnlen.restype, _strnlen.argtypes = ctypes.c_size_t, (ctypes.c_void_p, ctypes.c_size_t)


class LoadError(Exception):
    """A plugin cannot be used; the text is for the admin alone.

    phase  as a zygote's report has it (PROTOCOL.md, part 3).
    """

    phase = "settings"


class Compiled:
    """One file; load() makes it a plugin of this process, and nothing takes it out again."""

    def __init__(self, file: str, symbol: str) -> None:
        """Nothing of the file is touched yet."""
        self.file = file
        self.symbol = symbol
        self.name = os.path.basename(file)  # noqa: PTH119 - pathlib stays out of the zygote
        self._table = 0
        self._seen: object = None
        self._calls = {function: _named(_call, f"{self.name} {function}") for function in PROTOTYPES}
        """By the names of these functions a crash's traceback says whose it is."""
        self._init = _named(_call_init, f"{self.name} {symbol}")

    def look(self) -> None:
        """Remember which file it is: load() takes no other. Raises LoadError."""
        self._seen = self._look()

    def _look(self) -> object:
        try:
            found = os.stat(self.file)  # noqa: PTH116
        except OSError as error:
            raise LoadError(f"{self.file}: {error.strerror}") from error
        # Not the time of the last change: chmod, and a backup by hard links, are no other content.
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def load(self) -> None:
        """Open it, and let it initialise itself. Raises LoadError."""
        if self._look() != self._seen:
            raise LoadError(f"{self.file} changed on disk since forkd started: start forkd again")
        handle = _dlopen(self.file.encode("utf-8", "surrogateescape"), MODE)
        if not handle:
            raise LoadError(f"{self.file} cannot be loaded: {self._why()}")
        address = _dlsym(handle, self.symbol.encode())
        if not address:
            raise LoadError(f"{self.file} has no function {self.symbol}()")
        self._table = self._init(address) or 0
        if not self._table:
            raise LoadError(f"{self.file}: {self.symbol}() returned NULL, and no table of functions")
        for function in _OFFSETS:
            self._address(function)  # a table that cannot be read is found now

    def _why(self) -> str:
        """What the loader says, for the admin."""
        said = (_dlerror() or b"no reason is known").decode("utf-8", "backslashreplace")
        if _MISSING in said:
            said += " (what is not below the system's library folders must be granted: files)"
        return said.removeprefix(f"{self.file}: ")

    def pretend(self, on: bool) -> None:
        """Before load(): call() goes to functions of the C library, so that its own way is warmed; or not."""
        self._table = ctypes.addressof(_HARMLESS) if on else 0

    def call(
        self, function: str, arguments: Iterable[bytes | None], most: int
    ) -> tuple[int | None, bytes | None]:
        """Its return value, None where it has no such function; and its text, where it refuses.

        most       octets of that text; it has so many only where it has no end before.
        arguments  without NUL octets; None is NULL. It gets copies, and may write to them.
        """
        address = self._address(function)
        if not address:
            return None, None
        places = zip(arguments, _PLACES[function], strict=True)
        buffers = [None if text is None else _written(text, at) for text, at in places]
        said: tuple[int, bytes | None] = self._calls[function](PROTOTYPES[function](address), buffers, most)
        return said

    def _address(self, function: str) -> int:
        """Read each time: the table is the plugin's, and it may change it."""
        return ctypes.c_void_p.from_address(self._table + _OFFSETS[function]).value or 0


def _written(text: bytes, at: int) -> Any:
    """A copy of an argument that a plugin may write to, and keep: each kind has its place.

    Most fit where there is room already: a new type of array, one for each length, is a dozen page faults.
    """
    if len(text) >= _ROOM:
        return ctypes.create_string_buffer(text)
    _rooms[at].value = text
    return _rooms[at]


_ROOM = 1024
_rooms = [ctypes.create_string_buffer(_ROOM) for _ in range(6)]
_PLACES = {"mail_func": (0, 1), "rcpt_func": (0, 1, 2), "data_func": (3, 0, 4, 5)}
"""Of remote ip, sender, recipient; local host, remote host, remote info."""


def _harmless_rows() -> Any:
    """A table of functions that take whatever they are given, and return 0."""
    address = ctypes.cast(_libc.sched_yield, ctypes.c_void_p).value
    return (ctypes.c_void_p * len(_OFFSETS))(address, address, address)


_HARMLESS = _harmless_rows()


def _call(function: Any, arguments: Iterable[Any], most: int) -> tuple[int, bytes | None]:
    mesg = ctypes.c_void_p(None)
    returned = int(function(*arguments, ctypes.byref(mesg)))
    if not returned or not mesg.value:
        return returned, None
    return returned, ctypes.string_at(mesg.value, _strnlen(mesg.value, most))


def _call_init(address: int) -> int | None:
    found: int | None = _INIT(address)()
    return found


def _named(function: Callable[..., Any], name: str) -> Any:
    name = name.encode("ascii", "backslashreplace").decode()
    return types.FunctionType(function.__code__.replace(co_name=name, co_qualname=name), globals(), name)


# --- the environment, as C code sees it ------------------------------------------------------------------

_MOST = 160
"""Variables: more than an entry may have, a session may export, and we set."""


def set_environment(variables: dict[str, str]) -> None:
    """Make these the whole environment of this process' C code; os.environ does not follow.

    All of it in one piece: by setenv(3), ten variables are a hundred microseconds.
    """
    entries = [f"{name}={value}".encode("utf-8", "surrogateescape") for name, value in variables.items()]
    block = ctypes.c_char_p(b"\0".join(entries))
    _blocks.append(block)  # a plugin may have kept what getenv() gave it
    at = ctypes.c_void_p.from_buffer(block).value or 0
    for number, entry in enumerate(entries):
        _slots[number] = at
        at += len(entry) + 1
    _slots[len(entries)] = None
    _own.value = ctypes.addressof(_slots)
    _libcs.value = _own.value


def change_environment(variables: Mapping[str, str | None]) -> None:
    """Set these; None takes one away. What a plugin has set stays."""
    for name, value in variables.items():
        if value is None:
            os.unsetenv(name)
        else:
            os.putenv(name, value)
    _libcs.value = _own.value


_blocks: list[Any] = []
_slots = (ctypes.c_void_p * (_MOST + 1))()
_own = ctypes.c_void_p.in_dll(_libc, "environ")
_libcs = ctypes.c_void_p.in_dll(ctypes.PyDLL("libc.so.6"), "environ")
"""A plugin bound to its own libraries first finds libc's own `environ`; an interpreter that is linked as
most are has another one, which is the true one."""
