"""The program of the process that draws: reads a request a line, writes an answer a line; see `search.review.drawing`.

It is run by its path and imports nothing of ours, so that it starts in a moment.
"""

from __future__ import annotations

import base64
import json
import signal
import sys


def answer_requests() -> None:
    """Answers until standard input ends: {"call": function of vl_convert, "given": its arguments} -> its result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    for line in sys.stdin:
        request = json.loads(line)
        try:
            import vl_convert

            found = getattr(vl_convert, request["call"])(**request["given"])
            answer = {"bytes": base64.b64encode(found).decode()} if isinstance(found, bytes) else {"text": found}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    answer_requests()
