"""Where keys stand: forkd/config/lines.py."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from forkd.config.lines import key_lines
from forkd.config.problems import toml_key, toml_value


def test_tables_and_keys_have_their_lines():
    """An error names the line where the key stands."""
    text = 'top = 1\n\n[a]  # c\nx = 1\n[a."b.c"]\n"y z" = "["\n'
    assert key_lines(text) == {("top",): 1, ("a",): 3, ("a", "x"): 4, ("a", "b.c"): 5, ("a", "b.c", "y z"): 6}


def test_strings_and_arrays_over_several_lines_do_not_hide_what_follows():
    """What looks like a header or a comment within a value is none."""
    text = (
        'a = """\n[no]\n# "" \\"\\"\\" \n"""\nb = [ # ]\n  "]", \'#\',\n]\nc = \'\'\'\nx = 1\n\'\'\'\nd = 1\n'
    )
    assert tomllib.loads(text).keys() == {"a", "b", "c", "d"}
    assert key_lines(text) == {("a",): 1, ("b",): 5, ("c",): 8, ("d",): 11}


def test_inline_tables_and_dotted_keys_are_followed():
    """The parts of a dotted key and the keys of an inline table have lines too."""
    text = "\na.b = 1\nt = { x = [{ y = 1 }], z = 2024-01-01T00:00:00Z }\n"
    assert key_lines(text) == {
        ("a",): 2,
        ("a", "b"): 2,
        ("t",): 3,
        ("t", "x"): 3,
        ("t", "x", "y"): 3,
        ("t", "z"): 3,
    }


def test_escapes_in_keys_are_read_as_tomllib_reads_them():
    """Otherwise the key that tomllib gave would have no line."""
    assert key_lines('"a\\u00e9\\n\\\\" = 1\n') == {("aé\n\\",): 1}


_KEYS = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
_SCALARS = st.integers(-(10**6), 10**6) | st.booleans() | _KEYS
_VALUES = st.recursive(
    st.integers(-(10**6), 10**6)
    | st.booleans()
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_every_key_of_any_valid_text_is_found_on_its_line(content: dict[str, Any]):
    """Whatever tomllib accepts, the scanner follows to the end."""
    text = "".join(f"\n{toml_key(key)} = {toml_value(value)}\n" for key, value in content.items())
    assert tomllib.loads(text) == content
    lines = key_lines(text)
    for at, key in enumerate(content):
        assert lines[key,] == 2 * at + 2
