"""Prunes PyTorch networks to a budget: the public face.

    import secateur as sc

Everything in `__all__` is stable; the rooms behind it (`backbones`, `scoring`, `search`) are where it lives.
`python -m secateur` is the command line.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path


def _check_rooms() -> None:
    """Raises ImportError in one line when a folder of the user's stands in front of one of our packages."""
    home = Path(__file__).resolve().parent
    for room in ("backbones", "scoring", "search"):
        spec = importlib.util.find_spec(room)
        origin = None if spec is None else spec.origin
        if origin is None or Path(origin).resolve().parent != home / room:
            where = origin or next(iter((spec and spec.submodule_search_locations) or ()), "nowhere")
            raise ImportError(
                f"secateur needs its own package {room!r} from {home}, but Python finds {where}; "
                f"rename that one or move it off the path"
            )


_check_rooms()

from backbones.cost import Cost, cost  # noqa: E402
from backbones.errors import SecateurError  # noqa: E402
from backbones.graph import ChannelGraph, Group  # noqa: E402
from backbones.structure import Structure  # noqa: E402
from backbones.version import VERSION  # noqa: E402

__version__ = VERSION

__all__ = [
    "ChannelGraph",
    "Cost",
    "Group",
    "SecateurError",
    "Structure",
    "__version__",
    "cost",
]

if __name__ == "__main__":
    import sys

    from search.cli import main

    sys.exit(main())
