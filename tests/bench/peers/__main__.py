"""Set up the peers in their cache folder: python -m tests.bench.peers"""

from __future__ import annotations

import sys

from tests.bench.peers import cache
from tests.bench.peers.setup import setup


def main() -> int:
    """0 also when a peer is missing: the benchmark goes on without it."""
    print(f"peers' folder: {cache.folder()} (${cache.VARIABLE})", flush=True)
    missing = setup(lambda line: print(line, flush=True))
    print(f"missing: {', '.join(missing)}" if missing else "all peers are there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
