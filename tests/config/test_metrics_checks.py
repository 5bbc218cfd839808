"""[metrics]: where it may listen (config/metrics_checks.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.config_files import loaded, problem


@pytest.mark.parametrize("where", ["", "auto", "127.0.0.1:9252", "[::1]:9252", "/run/forkd/metrics.sock"])
def test_a_socket_of_this_machine_is_taken_without_a_word(tmp_path: Path, where: str):
    found = loaded(tmp_path, f'[metrics]\nlisten = "{where}"\n')
    assert found.config.metrics.listen == where
    assert not any("metrics" in note for note in found.notes)


@pytest.mark.parametrize(
    "where", ["9252", "localhost", "localhost:9252", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536",
              "::1:9252", "[127.0.0.1]:9252", "run/metrics.sock", "off", "unix:/x"],
)  # fmt: skip
def test_what_is_no_place_is_a_problem(tmp_path: Path, where: str):
    found = problem(tmp_path, f'[metrics]\nlisten = "{where}"\n')
    assert (found.line, found.key) == (2, "listen")


def test_an_address_of_the_network_is_said(tmp_path: Path):
    """Legal, and behind a firewall fine."""
    notes = loaded(tmp_path, '[metrics]\nlisten = "0.0.0.0:9252"\n').notes
    assert any("0.0.0.0:9252 is no loopback address" in note for note in notes)
