"""plugins/INDIMAIL.md: what it tells an admin to write is what forkd reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forkd.config.load import load
from forkd.config.qmail_lists import LISTS

PAGE = (Path(__file__).parent.parent.parent / "plugins" / "INDIMAIL.md").read_text()
BLOCKS = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
_OFF = re.compile(r"^# (\w+ = [^…]*?)(\s+# .*)?$", re.MULTILINE)


def _ids(block: str) -> str:
    return block.splitlines()[0]


@pytest.mark.parametrize("switched_on", [False, True], ids=["as it stands", "uncommented"])
@pytest.mark.parametrize("block", BLOCKS, ids=_ids)
def test_what_is_to_be_written_is_read(tmp_path: Path, block: str, switched_on: bool):
    """With the files it names in the places that a test has."""
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "me").write_text("mx.example.org\n")
    (tmp_path / "smtpd-plugin.so").touch()
    for there, here in {
        "/etc/indimail/control": str(tmp_path / "control"),
        "/usr/lib/indimail/plugins": str(tmp_path),
        "/usr/local/bin/spam-filter": "/bin/cat",
        "/etc/spam-filter": str(tmp_path),
    }.items():
        block = block.replace(there, here)
    text = _OFF.sub(r"\1", block) if switched_on else block
    entry = re.match(r"# plugins\.d/(\S+)\n", block)
    config = '[domain."example.org"]\n' + ("" if entry else text)
    (tmp_path / "forkd.toml").write_text(config)
    if entry:
        (tmp_path / "plugins.d").mkdir()
        (tmp_path / "plugins.d" / entry[1]).write_text(text)
    loaded = load(tmp_path / "forkd.toml")
    assert len(loaded.plugins) == bool(entry)


def test_every_control_file_that_is_read_is_on_the_page():
    """And what of it is different."""
    table = PAGE.partition("## Control files")[2].partition("Not in control files")[0]
    single = (
        "me smtpgreeting rcpthosts morercpthosts locals virtualdomains relayclients databytes maxrecipients"
    )
    limits = "maxhops timeoutsmtpd tarpitcount tarpitdelay qregex"
    names = [*single.split(), *limits.split(), *(name for some in LISTS.values() for name in some)]
    assert [name for name in names if f"`{name}`" not in table] == []
