"""Renders the docstrings into HTML; fails on a module that cannot be imported, or a public name that has no entry.

Usage: python .ci/docs.py FOLDER
"""

import html
import re
import sys
import warnings
from pathlib import Path

import pdoc

import secateur

ROOMS = ("secateur", "backbones", "scoring", "search", "!search.typing")
HEADINGS = re.compile(r"^\s*(Args|Returns|Raises|Attributes|Yields):\s*$", flags=re.MULTILINE)


def main(folder: Path) -> None:
    warnings.simplefilter("error")  # pdoc warns of what it cannot import or read
    warnings.filterwarnings("ignore", r".* parsing (type annotation )?(hashlib\._Hash|pandas\.)")  # not at run time
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*ROOMS, output_directory=folder)
    page = (folder / "secateur.html").read_text(encoding="utf-8")
    missing = [name for name in secateur.__all__ if f'id="{name}"' not in page]
    pages = sorted(folder.rglob("*.html"))
    unread = [f"{path.relative_to(folder)}: {found}" for path in pages for found in broken(path)]
    if missing or unread:
        sys.exit("\n".join([f"secateur.html has no entry for {', '.join(missing)}"] * bool(missing) + unread))
    print(f"docs: {len(pages)} pages, all {len(secateur.__all__)} public names; open {folder / 'secateur.html'}")


def broken(path: Path) -> list[str]:
    """Section headings that stayed plain text: their docstring is not laid out as the Google style asks."""
    read = re.sub(r"<h6.*?</h6>", "", path.read_text(encoding="utf-8"))  # what pdoc understood is a heading
    text = html.unescape(re.sub(r"<[^>]+>", "", read))
    return [match.group(1) + ": was not understood" for match in HEADINGS.finditer(text)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
