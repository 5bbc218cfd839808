"""A long run of one fuzz target under atheris, which follows what the inputs reach in the code.

    pip install atheris
    python -m tests.fuzz.explore smtp_server --seconds 3600

Seeds come from tests/fuzz/corpus/TARGET and new inputs go to a scratch folder; at the end the corpus is
made small again (each file adds a branch) and written back. A failing input is left as crash-* in the
scratch folder, and the exit status is not 0: put it into the corpus with the repair.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
MAX_INPUT_OCTETS = 4096
KEPT_FILES = 200
"""Of one target; the smallest stay."""


def fuzz(target: str, arguments: list[str]) -> None:
    """In a process of its own: libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["forkd", "tests.fuzz"]):
        module = importlib.import_module(f"tests.fuzz.{target}")
    atheris.Setup([sys.argv[0], *arguments], module.one_input)
    atheris.Fuzz()


def explore(target: str, seconds: int) -> int:
    """Run, shrink, keep; the fuzzer's exit status."""
    corpus = CORPUS / target
    scratch = Path(tempfile.mkdtemp(prefix=f"fuzz-{target}-"))
    found = scratch / "found"
    found.mkdir()
    me = [sys.executable, "-m", "tests.fuzz.explore", target, "--libfuzzer"]
    limits = [f"-max_len={MAX_INPUT_OCTETS}", "-timeout=10", "-rss_limit_mb=2048"]
    prefix = f"-artifact_prefix={scratch}/"
    run = subprocess.run(
        [*me, str(found), str(corpus), f"-max_total_time={seconds}", "-print_final_stats=1", *limits, prefix],
        check=False,
    )
    if run.returncode:
        print(f"{target}: failed; the input is in {scratch}", file=sys.stderr)
        return run.returncode
    kept = scratch / "kept"
    kept.mkdir()
    subprocess.run([*me, "-merge=1", str(kept), str(corpus), str(found), *limits], check=True)
    known = {path.read_bytes() for path in corpus.iterdir()}
    new = sorted(
        (path for path in kept.iterdir() if path.read_bytes() not in known), key=lambda p: p.stat().st_size
    )
    room = max(0, KEPT_FILES - len(known))
    for path in new[:room]:
        shutil.copy(path, corpus / f"found-{path.name[:12]}")
    print(f"{target}: {len(new)} new inputs reach more, {min(room, len(new))} of them are kept")
    shutil.rmtree(scratch)
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", help="a module of tests/fuzz with one_input(data)")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--libfuzzer", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.libfuzzer is not None:
        fuzz(given.target, given.libfuzzer)
    return explore(given.target, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
