"""What does a check work with? The configuration, the file it came from, and where its findings go."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path
from typing import Final

from forkd.config.addresses import Network, NetworkError, parse_network
from forkd.config.lines import KeyPath
from forkd.config.problems import NOT_GIVEN, Problems, Source, display_path, toml_key
from forkd.config.reader import nearest
from forkd.config.schema import Config

CREDENTIALS: Final = Path("/run/credentials")
"""What LoadCredential= names (systemd.exec(5)) is there only while the service runs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """What a check works with. `notes` collects what is legal but worth saying."""

    config: Config
    source: Source
    problems: Problems
    notes: list[str]

    def bad(self, path: KeyPath, rule: str, *, value: object = NOT_GIVEN, hint: str = "") -> None:
        """Note a problem of forkd.toml."""
        self.problems.add(self.source, path, rule, value=value, hint=hint)

    def clean(self, *paths: KeyPath) -> bool:
        """None of these keys has a problem of its own."""
        return self.problems.clean(self.source, *paths)

    def given(self, path: KeyPath) -> bool:
        """The admin wrote this key himself."""
        return path in self.source.lines

    def network(self, path: KeyPath, text: str) -> Network | None:
        """One network of a list; None when it is none, which is noted."""
        try:
            return parse_network(text)
        except NetworkError as error:
            self.bad(path, str(error), value=text, hint=error.hint)
            return None

    def transport_exists(self, path: KeyPath, name: str) -> None:
        """A [transport] that is named is there."""
        if name not in self.config.transport and self.clean(("transport", name)):
            rule = f"there is no [transport.{toml_key(name)}]"
            self.bad(path, rule, value=name, hint=nearest(name, self.config.transport))

    def file(self, path: KeyPath, file: Path, *, secret: bool = False, hint: str = "") -> bool:
        """A file that is named is one, and can be read; one with secrets is not the world's to read."""
        try:
            mode = file.stat().st_mode
            if not stat.S_ISREG(mode):
                kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
                self.bad(path, f"this is {kind}, and a file is wanted", value=display_path(file))
                return False
            file.open("rb").close()
        except FileNotFoundError:
            if CREDENTIALS in file.parents:
                self.notes.append(
                    f"{dotted(path)}: {file} is there only while systemd runs forkd, and was not looked at"
                )
                return True
            self.bad(path, "there is no such file", value=display_path(file), hint=hint)
            return False
        except OSError as error:
            said = (error.strerror or str(error)).lower()
            hint = "run this as the user that starts forkd" if isinstance(error, PermissionError) else ""
            self.bad(path, f"this file cannot be read: {said}", value=display_path(file), hint=hint)
            return False
        if secret and mode & stat.S_IROTH:
            self.notes.append(
                f"{dotted(path)}: everybody on this machine may read {display_path(file)}, which holds "
                "secrets: chmod o-r it"
            )
        return True


def dotted(path: KeyPath) -> str:
    """`listener.smtp.tls`: a key in a running text."""
    return ".".join(map(toml_key, path))
