"""Passes lines on and, on a terminal, draws under them how far the work is: progress.py NAME

A line that says `N of M` somewhere is what the bar follows; the first such pair of a line counts.
Into a file or a pipe the lines go as they are, and nothing is drawn.
"""

from __future__ import annotations

import re
import shutil
import sys
import time

PAIR = re.compile(r"\b(\d+) of (\d+)\b")
BAR = 24


def drawn(name: str, done: int, total: int, seconds: float, columns: int) -> str:
    """The bar as text, in one line of the terminal."""
    share = min(done / total, 1.0) if total else 0.0
    filled = round(share * BAR)
    bar = "#" * filled + "-" * (BAR - filled)
    minutes, rest = divmod(int(seconds), 60)
    return f"{name} [{bar}] {share:4.0%} {minutes} min {rest:02} s"[: columns - 1]


def main() -> None:
    """Reads lines until they end."""
    began = time.monotonic()
    out, name = sys.stdout.buffer, sys.argv[1]
    is_terminal = sys.stdout.isatty()
    done, total = 0, 0
    for line in sys.stdin.buffer:
        found = PAIR.search(line.decode(errors="replace"))
        if found and int(found[2]) > 0:
            done, total = int(found[1]), int(found[2])
        if is_terminal:
            columns = shutil.get_terminal_size().columns
            bar = drawn(name, done, total, time.monotonic() - began, columns)
            # The line takes the place of the bar, which goes one down.
            out.write(b"\r\x1b[K" + line.rstrip(b"\n") + b"\n" + bar.encode())
        else:
            out.write(line)
        out.flush()
    if is_terminal:
        out.write(b"\r\x1b[K")


if __name__ == "__main__":
    main()
