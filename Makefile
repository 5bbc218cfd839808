# forkd: `make run` and `make test` are all that a newcomer needs.

.PHONY: run setup test test-all lint escapes bench manual clean

run: setup  ## set up and run the daemon on 127.0.0.1:2525, on defaults
	@exec env FORKD_CONFIG= .venv/bin/forkd run

setup:  ## Debian packages (as root), .venv, Python packages; leaves .venv/bin/forkd
	@tools/setup.sh run

test:  ## set up and run the tests, in one mode, in under ten minutes
	@tools/setup.sh test
	@tools/test.sh -m "not slow"

test-all:  ## every mode, long loads, mutation checks
	@tools/setup.sh test
	@tools/test.sh

lint:  ## format, lint, types
	@tools/setup.sh test
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

escapes:  ## all attacks on the sandbox in every mode this machine allows, one table
	@tools/setup.sh test
	.venv/bin/python -m tests.escapes

bench:  ## forkd beside its peers, one table (tests/bench/README.md); fetches the peers first
	@tools/setup.sh test
	.venv/bin/python -m tests.bench.peers
	.venv/bin/python -m tests.bench

manual:  ## the manual pages, docs/man, from schema, command line and docstrings
	@tools/setup.sh run
	@.venv/bin/python -m tools.manual

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
