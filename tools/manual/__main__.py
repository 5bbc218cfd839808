"""python -m tools.manual [FOLDER]: write the manual pages; without a folder to docs/man."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.manual.pages import write

FOLDER = Path(__file__).parent.parent.parent / "docs" / "man"

if __name__ == "__main__":
    for file in write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        print(file)
