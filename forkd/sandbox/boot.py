"""Where does an exec'd zygote begin? Run by path: python -I -S -B boot.py zygote NAME.

The interpreter may be any plugin's own, without forkd installed: so the package `forkd` is made here
from the folder this file lies in, and no folder of third-party packages comes onto the path.
"""

import importlib.util
import os
import sys


def _make_package() -> None:
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    spec = importlib.util.spec_from_file_location(
        "forkd", folder + "/__init__.py", submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["forkd"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    # Run by path, Python puts this file's folder first: `import linux` would then be ours.
    # (-I leaves it out already; this states it for whoever runs it otherwise.)
    sys.path[:] = [entry for entry in sys.path if entry and not entry.endswith("/forkd/sandbox")]
    _make_package()
    from forkd.sandbox.zygote import main

    main()
