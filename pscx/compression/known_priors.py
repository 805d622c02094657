"""Where the priors of streams are: a table of fingerprints that the program fills, and that a user may fill too.

It is a YAML file, ``fingerprint: place``, where a fingerprint is twelve hexadecimal digits (``pscx info`` prints that
of a stream) and a place is a folder, a file or a hub id. ``PSCX_PRIORS`` names it; else it is ``pscx/priors.yaml`` in
the user's folder of configurations.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml

from pscx.errors import PscxError
from pscx.priors import PRIORS, Prior
from pscx.runtime.files import write_whole
from pscx.runtime.notices import tell
from pscx.runtime.printing import printable
from pscx.runtime.safe_yaml import parse_yaml, read_bounded

VARIABLE = "PSCX_PRIORS"
FINGERPRINT = re.compile(r"[0-9a-f]{12}")
SHIPPED = "embedded"


class KnownPriors:
    """The table of one file.

    Args:
        file: the table; none for the user's own. It need not exist.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or users_file()

    def place(self, fingerprint: bytes) -> str | None:
        """Where the prior of that fingerprint is, or none. Raises as :meth:`table`."""
        return self.table().get(fingerprint.hex())

    def remember(self, fingerprint: bytes, prior: Prior) -> None:
        """Keep where a prior was loaded from; one that ships with pscx needs none. A notice if that fails."""
        place = PRIORS.spec(prior).get("path")
        if not isinstance(place, str) or place == SHIPPED:
            return
        place = str(Path(place).resolve()) if Path(place).exists() else place
        try:
            table = self.table()
            if table.get(fingerprint.hex()) == place:
                return
            self.file.parent.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump({**table, fingerprint.hex(): place}, sort_keys=True, allow_unicode=True)
            write_whole(self.file, text.encode(), force=True)
        except (OSError, PscxError) as error:
            tell(printable(f"the place of the prior is not remembered: {error}"), once="remember")

    def table(self) -> dict[str, str]:
        """Places by fingerprint; empty where there is no file. Raises :class:`PscxError` where it is no such table."""
        if not self.file.is_file():
            return {}
        found = parse_yaml(read_bounded(self.file), f"'{self.file}'") or {}
        if not isinstance(found, dict):
            raise PscxError(f"'{self.file}' must be a table, 'fingerprint: place'")
        for key, place in found.items():
            if not (FINGERPRINT.fullmatch(str(key)) and isinstance(place, str) and place):
                raise PscxError(
                    f"'{self.file}' must have twelve hexadecimal digits (in quotes, if all are decimal) and a place in "
                    f"each line, got {str(key)[:64]!r}"
                )
        return {str(key): place for key, place in found.items()}


def users_file() -> Path:
    """The user's own table."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "pscx" / "priors.yaml"
