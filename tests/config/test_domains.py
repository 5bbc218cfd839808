"""Names of domains in their two forms: forkd/config/domains.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from forkd.config.domains import domain_slip, is_domain
from forkd.smtp.address import a_labels


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Example.ORG", "example.org"),
        ("Bücher.Example", "xn--bcher-kva.example"),
        ("XN--Bcher-Kva.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("ｅxample.org", "example.org"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("مثال.إختبار", "xn--mgbh0fb.xn--kgbechtv"),
        ("[192.0.2.1]", "[192.0.2.1]"),
    ],
)
def test_domains_are_compared_in_a_labels(name: str, expected: str):
    """RFC 5890 2.3.2.1, IDNA 2008 with the mapping of UTS 46: ß stays itself."""
    assert a_labels(name) == expected


@pytest.mark.parametrize(
    "name", ["ü b.example", "ü..example", "ab--ü.example", "😀.example", "ü" * 64, "ü\0"]
)
def test_what_is_no_name_is_a_value_error(name: str):
    """RFC 5891 4.2, 4.4: symbols, empty or long labels, hyphens in the third and fourth place."""
    with pytest.raises(ValueError):
        a_labels(name)
    assert not is_domain(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("example.org.", "example.org"),
        ("*.example.org", "example.org"),
        ("@bücher.example", "bücher.example"),
        ("example.org", ""),
        ("a b", ""),
    ],
)
def test_the_name_that_was_meant(name: str, meant: str):
    """For hints."""
    assert domain_slip(name) == meant


def test_all_tables_are_loaded_before_roles_confine_themselves():
    """A worker may open no file when the first UTF-8 address comes."""
    code = (
        "import sys; from forkd.smtp.address import a_labels; before = set(sys.modules);"
        "a_labels('ＢÜcher.例え'); print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
