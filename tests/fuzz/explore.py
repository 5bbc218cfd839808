"""A long run of one fuzz target under atheris, which follows what the inputs reach in the code.

    pip install atheris
    python -m tests.fuzz.explore smtp_server --seconds 3600

Seeds come from tests/fuzz/corpus/TARGET and new inputs go to a scratch folder; at the end those that reach
a step from line to line which no kept file reaches are added to the corpus, the smallest first. A failing
input is left as crash-* in the scratch folder, and the exit status is not 0: put it into the corpus with the
repair.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
FORKD = str(Path(__file__).parent.parent.parent / "forkd")
MAX_INPUT_OCTETS = 4096
KEPT_FILES = 200
"""Of one target: the tests run them all."""


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
    kept = keep(target, corpus, found)
    print(f"{target}: {len(list(found.iterdir()))} inputs were found, {kept} of them are kept")
    shutil.rmtree(scratch)
    return 0


def keep(target: str, corpus: Path, found: Path) -> int:
    """Copy into the corpus what reaches more than it does; how many."""
    module = importlib.import_module(f"tests.fuzz.{target}")
    reached: set[tuple[str, int, int]] = set()
    for path in sorted(corpus.iterdir()):
        reached |= steps(module.one_input, path.read_bytes())
    room = KEPT_FILES - len(list(corpus.iterdir()))
    count = 0
    for path in sorted(found.iterdir(), key=lambda path: (path.stat().st_size, path.name)):
        if count >= room:
            break
        new = steps(module.one_input, path.read_bytes())
        if not new <= reached:
            reached |= new
            shutil.copy(path, corpus / f"found-{path.name[:12]}")
            count += 1
    return count


def steps(run: Callable[[bytes], None], data: bytes) -> set[tuple[str, int, int]]:
    """Every step from one line of forkd to the next that this input makes: file, from, to."""
    seen: set[tuple[str, int, int]] = set()

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if event == "call" and not frame.f_code.co_filename.startswith(FORKD):
            return None
        last = frame.f_lineno

        def line(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
            nonlocal last
            if event == "line":
                seen.add((frame.f_code.co_filename, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    sys.settrace(trace)
    try:
        run(data)
    finally:
        sys.settrace(None)
    return seen


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
