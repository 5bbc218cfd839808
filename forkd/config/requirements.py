"""Does an interpreter have what a plugin needs: a version of Python, and distributions to import?"""

from __future__ import annotations

from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from forkd.config.installed import Environment
from forkd.config.lines import KeyPath
from forkd.config.problems import Problems, Source
from forkd.config.schema import Manifest

OLDEST: Final = ">=3.11"
"""What the zygote's own code needs."""


def check_requires(manifest: Manifest, source: Source, problems: Problems) -> None:
    """What a manifest requires is written as packaging tools write it (PEP 440, PEP 508)."""
    try:
        SpecifierSet(manifest.python)
    except InvalidSpecifier:
        rule = 'this is what versions of Python it runs under, as in ">=3.11"'
        problems.add(source, ("python",), rule, value=manifest.python)
    for text in manifest.requires:
        try:
            found = Requirement(text)
        except InvalidRequirement:
            rule = 'this is the name of a distribution and its versions, as in "dkimpy>=1.1"'
            problems.add(source, ("requires",), rule, value=text)
            continue
        if found.url:
            rule = "from where it is installed is the admin's to say: name the distribution only"
            problems.add(source, ("requires",), rule, value=text, hint=f'write "{found.name}"')


def check_installed(
    manifest: Manifest, there: Environment, problems: Problems, *, source: Source, key: KeyPath
) -> None:
    """A problem of the admin's `key` for all that is missing there, and the command that installs it."""
    name, shown = manifest.name, there.python or "the Python that runs forkd"
    if there.version and not _within(OLDEST, there.version):
        rule = f"this is Python {there.version}, and a plugin's interpreter is 3.11 or newer"
        problems.add(source, key, rule, value=str(shown))
        return
    if there.version and manifest.python and not _within(manifest.python, there.version):
        rule = f"the plugin {name} wants Python {manifest.python}, and {shown} is {there.version}"
        hint = 'make a virtual environment of such a one, and set python = "…/bin/python"'
        problems.add(source, key, rule, hint=hint)
    missing, said = [], []
    for text in manifest.requires:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate(_marker_environment(there)):
            continue
        version = there.version_of(wanted.name)
        if not version or not wanted.specifier.contains(version, prereleases=True):
            missing.append(f'"{wanted.name}{wanted.specifier}"')
            said.append(
                f"{wanted.name}{wanted.specifier} ({f'{version} is' if version else 'not'} installed)"
            )
    if missing:
        rule = f"the plugin {name} requires {', '.join(said)} for {shown}"
        problems.add(source, key, rule, hint=f"{there.command} -m pip install {' '.join(missing)}")


def _within(specifier: str, version: str) -> bool:
    """`3.11`, whose last number is not known, is within what any 3.11 is within."""
    versions = [version] if version.count(".") > 1 else [f"{version}.0", f"{version}.99"]
    return any(SpecifierSet(specifier).contains(one, prereleases=True) for one in versions)


def _marker_environment(there: Environment) -> dict[str, str]:
    if not there.version:
        return {}
    full = there.version if there.version.count(".") > 1 else f"{there.version}.0"
    return {"python_version": ".".join(full.split(".")[:2]), "python_full_version": full}
