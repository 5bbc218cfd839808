"""Where do the published test vectors of SPF and DKIM lie? In the sources that tools/setup.sh has fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

_FOLDER = Path(__file__).parent.parent.parent / ".venv" / "vectors"


def vector(name: str) -> Path:
    """A file by the end of its path in a source, e.g. `test/rfc7208-tests.yml`."""
    found = sorted(path for path in _FOLDER.rglob("*") if str(path).endswith(name))
    if not found:
        pytest.skip(
            f"{name} is not below {_FOLDER}: `tools/setup.sh test` fetches it", allow_module_level=True
        )
    return found[0]
