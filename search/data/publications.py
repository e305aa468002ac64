"""Where data sets are published, where their files lie here, and one clear line for a file that is not there."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from backbones.errors import SecateurError
from search.data.sources import Split, counts


@dataclass(frozen=True, slots=True)
class Publication:
    """A published data set.

    Attributes:
        title: its usual name.
        page: address where it is published.
        folders: names that its folder has once it is unpacked; the first that is there counts.
    """

    title: str
    page: str
    folders: tuple[str, ...]

    def home(self, folder: str | os.PathLike[str] | None) -> Path:
        """The folder given, or the one below `$SECATEUR_DATA/data`.

        Raises:
            SecateurError: when neither is there.
        """
        root = os.environ.get("SECATEUR_DATA")
        if folder is None and not root:
            raise SecateurError(
                f"{self.title} needs a folder: give folder=..., or set SECATEUR_DATA to the folder above "
                f"data/{self.folders[0]}; it is published at {self.page}"
            )
        places = [Path(folder)] if folder is not None else [Path(str(root), "data", name) for name in self.folders]
        for place in places:
            if place.is_dir():
                return place
        raise self.missing(places[0])

    def missing(self, path: Path, hint: str = "") -> SecateurError:
        """The error for a file or folder that is not there; `hint` says what else belongs beside it."""
        return SecateurError(
            f"{path.parent}: {path.name} is missing; {self.title} is published at {self.page}{hint and f' ({hint})'}"
        )

    def text(self, path: Path) -> str:
        """The text of a file.

        Raises:
            SecateurError: when it is missing or no text.
        """
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise self.missing(path) from None
        except (OSError, UnicodeDecodeError) as error:
            raise SecateurError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None

    def lines(self, path: Path) -> list[str]:
        """The lines of a text file that are not empty, stripped; raises as `text`."""
        return [line.strip() for line in self.text(path).splitlines() if line.strip()]

    def table(self, path: Path) -> dict[str, str]:
        """The first word of every line -> the rest of the line.

        Raises:
            SecateurError: as `text`, or for a line of a single word.
        """
        rows: dict[str, str] = {}
        for line in self.lines(path):
            first, *rest = line.split(maxsplit=1)
            if not rest:
                raise SecateurError(f"{path}: a line must be a name and what belongs to it, but one is {line!r}")
            rows[first] = rest[0]
        return rows


def warn_unequal(place: Path, split: Split, part: str, classes: int) -> None:
    """Warns when the classes of a split have different numbers of images, which the originals never have."""
    found = counts(split.labels, classes)
    if found.min() != found.max():
        warnings.warn(f"{place}: {part} images a class: {found.tolist()}, the original has equal numbers", stacklevel=3)
