"""Plugin, load, and the verdicts an author makes."""

from __future__ import annotations

import importlib.util
import py_compile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkd.sdk import (
    Plugin,
    add_header,
    add_recipient,
    change_header,
    change_sender,
    defer,
    delete_header,
    delete_recipient,
    deny,
    disconnect,
    export,
    quarantine,
    replace_body,
    rewrite,
)
from forkd.sdk.plugin import PluginError, SettingsError, check_hooks, load


def write(folder: Path, source: str) -> Path:
    (folder / "sample.py").write_text(source)
    return folder


GOOD = """
from forkd.sdk import Plugin, deny

def plugin_init(s):
    return Plugin(mail=lambda session, sender: deny('5.7.1', s['text']))
"""


def test_plugin_init_gets_the_settings(tmp_path: Path):
    """plugin_init(settings) -> Plugin."""
    plugin = load(write(tmp_path, GOOD), "sample.py", {"text": "no"})
    assert plugin.hooks["mail"](None, None) == deny("5.7.1", "no")


def compiled(file: Path, source: str) -> None:
    """A compiled file beside `file` that says it need not be checked against its source (PEP 552)."""
    other = file.with_name(f"other_{file.name}")
    other.write_text(source)
    where = importlib.util.cache_from_source(str(file))
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(other), where, invalidation_mode=mode, doraise=True)
    other.unlink()


PARTS = """
import parts_beside, parts_package.inner
from forkd.sdk import Plugin, deny

def plugin_init(s):
    text = f"source {parts_beside.TEXT} {parts_package.TEXT} {parts_package.inner.TEXT}"
    return Plugin(mail=lambda session, sender: deny('5.7.1', text))
"""


def test_what_is_run_is_what_can_be_read(tmp_path: Path):
    """Compiled files can be made of anything: no module of a plugin is loaded from one."""
    (tmp_path / "parts_package").mkdir()
    sources = {
        "parts.py": PARTS,
        "parts_beside.py": "TEXT = 'source'\n",
        "parts_package/__init__.py": "TEXT = 'source'\n",
        "parts_package/inner.py": "TEXT = 'source'\n",
    }
    for name, source in sources.items():
        (tmp_path / name).write_text(source)
        compiled(tmp_path / name, source.replace("source", "compiled"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert load(tmp_path, "parts.py", {}).hooks["mail"](0, 0).text == "source source source source"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_libraries_in_its_folder_are_loaded_as_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Those of its virtual environment: compiling them at each start would take seconds."""
    library = tmp_path / "venv" / "site-packages"
    library.mkdir(parents=True)
    (library / "a_library.py").write_text("TEXT = 'source'\n")
    compiled(library / "a_library.py", "TEXT = 'compiled'\n")
    monkeypatch.syspath_prepend(str(library))
    source = GOOD.replace("def ", "from a_library import TEXT\ndef ", 1).replace("s['text']", "TEXT")
    assert load(write(tmp_path, source), "sample.py", {}).hooks["mail"](0, 0).text == "compiled"


def test_modules_beside_the_plugin_can_be_imported(tmp_path: Path):
    """A plugin is a folder."""
    (tmp_path / "sample_tables.py").write_text("TEXT = 'from the table'\n")
    source = GOOD.replace("import Plugin", "import Plugin", 1).replace(
        "def ", "from sample_tables import TEXT\ndef ", 1
    )
    assert (
        load(write(tmp_path, source.replace("s['text']", "TEXT")), "sample.py", {}).hooks["mail"](0, 0).text
        == "from the table"
    )


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1\n", "no function plugin_init"),
        ("def plugin_init(s): return {}\n", "must return a Plugin, not dict"),
        (GOOD.replace("session, sender", "session"), r"mail\(session, sender\), but this one takes 1"),
        (GOOD.replace("session, sender", "a, b, c"), "takes 3 arguments"),
        (
            GOOD.replace("mail=lambda session, sender: deny('5.7.1', s['text'])", "mail=3"),
            "must be a function, not int",
        ),
    ],
)
def test_unusable_plugin_is_refused_with_a_text_for_its_author(tmp_path: Path, source: str, says: str):
    """PluginError, before any mail."""
    with pytest.raises(PluginError, match=says):
        load(write(tmp_path, source), "sample.py", {"text": "no"})


def test_missing_module(tmp_path: Path):
    """Named with its whole path."""
    with pytest.raises(PluginError, match=r"sample\.py does not exist"):
        load(tmp_path, "sample.py", {})


def test_own_errors_of_a_plugin_pass_through(tmp_path: Path):
    """The traceback is what the author needs."""
    with pytest.raises(ZeroDivisionError):
        load(write(tmp_path, "1/0\n"), "sample.py", {})


def test_a_value_error_of_plugin_init_is_about_settings(tmp_path: Path):
    """Its text is for the admin; the plugin's own exception is behind it."""
    source = "def plugin_init(s): raise ValueError('setting text: too long')\n"
    with pytest.raises(SettingsError, match=r"^setting text: too long$") as error:
        load(write(tmp_path, source), "sample.py", {})
    assert isinstance(error.value, ValueError)
    assert type(error.value.__cause__) is ValueError


@pytest.mark.parametrize("raised", ["ValueError()", "b'\\xff'.decode()", "KeyError('x')"])
def test_what_says_nothing_to_an_admin_passes_through(tmp_path: Path, raised: str):
    """An exception without a text, or that no author wrote, is told with its traceback."""
    with pytest.raises((ValueError, KeyError)) as error:
        load(write(tmp_path, f"def plugin_init(s): raise {raised}\n"), "sample.py", {})
    assert not isinstance(error.value, SettingsError)


@pytest.mark.parametrize("hook", [lambda s, *more: None, lambda s, sender, more=1: None, print, [].append])
def test_hooks_that_can_take_the_arguments_are_fine(hook: Callable[..., Any]):
    """Variable arguments, defaults and builtins."""
    assert Plugin(mail=hook).hooks == {"mail": hook}


def test_methods_are_hooks():
    """`self` is not counted."""

    class Check:
        def mail(self, session: Any, sender: Any) -> None: ...

    assert list(Plugin(mail=Check().mail).hooks) == ["mail"]


@pytest.mark.parametrize(
    ("hooks", "says"),
    [(["mail", "rcpt"], "declares hook rcpt"), ([], "gives hook mail, which plugin.toml does not")],
)
def test_hooks_of_code_and_manifest_must_agree(hooks: list[str], says: str):
    """Else a check would silently never be asked."""
    plugin = Plugin(mail=lambda session, sender: None)
    check_hooks(plugin, frozenset({"mail"}))
    with pytest.raises(PluginError, match=says):
        check_hooks(plugin, frozenset(hooks))


@pytest.mark.parametrize(
    "make",
    [
        lambda: deny("4.7.1", "no"),
        lambda: deny("5.7", "no"),
        lambda: deny("5.7.1000", "no"),
        lambda: deny("5.7.1", ""),
        lambda: deny("5.7.1", "two\nlines"),
        lambda: deny("5.7.1", "line\u2028separator"),
        lambda: deny("5.7.1", "no", code=451),
        lambda: deny("5.7.1", "no", code=500),
        lambda: defer("5.7.1", "no"),
        lambda: defer("4.7.1", "no", code=421),
        lambda: disconnect("5.7.1", "no"),
        lambda: add_header("X A", "v"),
        lambda: add_header("", "v"),
        lambda: add_header("X-A", "a\r\nBcc: x"),
        lambda: add_header("X-A", "\x85"),
        lambda: add_header("X-A", "v" * 1000),
        lambda: add_header("X-A", "v " * 5000),
        lambda: add_header("X" * 101, "v"),
        lambda: change_header("X-A", "v", 0),
        lambda: change_header("X-A", "a\nb"),
        lambda: delete_header("X-A", -1),
        lambda: delete_header("X:"),
        lambda: replace_body(b"a\0b"),
        lambda: add_recipient("postmaster"),
        lambda: delete_recipient("<a@b>"),
        lambda: change_sender("a@b\r\n"),
        lambda: rewrite(""),
        lambda: export("spf", "pass"),
        lambda: export("SPF", "two\nlines"),
        lambda: export("SPF", "v" * 257),
        lambda: quarantine(""),
        lambda: quarantine("two\nlines"),
        lambda: quarantine("x" * 201),
    ],
)
def test_wrong_values_raise_where_the_author_wrote_them(make: Callable[[], Any]):
    """ValueError at the call, not a breach later."""
    with pytest.raises(
        ValueError, match=r"deny|defer|disconnect|_header|_body|_recipient|_sender|rewrite|export|quarantine"
    ):
        make()
