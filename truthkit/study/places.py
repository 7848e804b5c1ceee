"""What the paths in a study's file mean."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.steering.spec import parse_steer

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Places:
    """What paths in a study's file mean.

    Attributes:
        home: the folder that they are relative to: the file's.
        variables: values of `${NAME}` in them; what is not there is looked up in the environment. Both are relative to
            the current folder, as a shell's paths are.
    """

    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def place(self, written: str) -> Path:
        """The path.

        Raises:
            ArgumentError: a variable has no value.
        """

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if (given := self.variables.get(name, os.environ.get(name))) is None:
                raise ArgumentError(
                    f"the path {written!r} has the variable {name}, which has no value; give it with --set "
                    f"{name}=PATH, or in the environment."
                )
            return str(Path(given).expanduser().absolute())

        return self.home / Path(_VARIABLE.sub(value, written)).expanduser()

    def steer(self, written: str) -> str:
        """The same of the file in a steering's text."""
        path = parse_steer(written).path
        if not (there := self.place(path)).is_file():
            raise NotAvailableError(f"steering by {written!r}: there is no file {str(there)!r}.")
        return written.replace(path, str(there), 1)
