"""Texts that are compared with a file in `tests/search/commands/golden/`, so that a change to them is seen and meant.

`SECATEUR_GOLDEN=write pytest tests/search/commands/test_golden.py` writes them anew; read the difference before
committing it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """Compares `text` with `golden/<name>.txt`."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get("SECATEUR_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def masked(text: str) -> str:
    """Structure ids as `id`, numbers as `#`, runs of spaces and dashes as one: what a machine computes is left out."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "id", text)
    text = re.sub(r"[+-]?\b[0-9][0-9.]*[kMG]?B?", "#", text)
    return re.sub(r"-+", "-", re.sub(r" +", " ", text))
