"""Where does an exec'd zygote begin? Run by path: python -I -S -B boot.py zygote NAME.

And how does master learn what this interpreter reads (interpreter.py)? boot.py paths.

The interpreter may be any plugin's own, without forkd installed: so the package `forkd` is made here
from the folder this file lies in, and no folder of third-party packages comes onto the path. An interpreter
that is too old says so: this file, alone of ours, is written so that Python 3.6 can read it.
"""

import importlib.util
import os
import sys

OLDEST = (3, 11)
"""What the zygote's own code needs."""


def _make_package() -> None:
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    spec = importlib.util.spec_from_file_location(
        "forkd", folder + "/__init__.py", submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["forkd"] = package
    spec.loader.exec_module(package)


def _tell_paths() -> None:
    """What this interpreter reads, with what its extensions need that a plugin may import later."""
    import contextlib  # noqa: PLC0415 - not for a zygote, nor for an interpreter too old for the last
    import json  # noqa: PLC0415

    from forkd.sandbox.confine import interpreter_paths  # noqa: PLC0415

    for name in ("_bz2", "_ctypes", "_decimal", "_hashlib", "_lzma", "_ssl", "_uuid", "zlib"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    folders = [entry for entry in sys.path if os.path.isdir(entry)]  # noqa: PTH112
    print(json.dumps(sorted({*interpreter_paths(), *folders})))


def _check_version() -> None:
    """Tell master, as a zygote tells what is wrong (PROTOCOL.md, part 3; descriptor 3 is wire.CONTROL_FD)."""
    if sys.version_info >= OLDEST:
        return
    import json  # noqa: PLC0415 - for an interpreter that goes no further

    have, need = (".".join(map(str, version[:2])) for version in (sys.version_info, OLDEST))
    text = f"{sys.executable} is Python {have}, and a plugin's interpreter is {need} or newer"
    record = json.dumps({"t": "failed", "phase": "settings", "error": text})
    os.write(3, record.encode())
    os._exit(1)


if __name__ == "__main__":
    asked = sys.argv[1:] == ["paths"]
    if asked and sys.version_info < OLDEST:
        print("[]")
        sys.exit()
    _check_version()
    # Run by path, Python puts this file's folder first: `import linux` would then be ours.
    # (-I leaves it out already; this states it for whoever runs it otherwise.)
    sys.path[:] = [entry for entry in sys.path if entry and not entry.endswith("/forkd/sandbox")]
    _make_package()
    if asked:
        _tell_paths()
        sys.exit()
    from forkd.sandbox.zygote import main

    main()
