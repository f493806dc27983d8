"""Writes the names of all assigned Unicode characters: HEX, a tab, NAME, one per line.

python3 make_unicode_tsv.py FILE
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path


def main(path: Path) -> None:
    """Write the file at ``path``, whole or not at all."""
    names = ((point, unicodedata.name(chr(point), None)) for point in range(sys.maxunicode + 1))
    lines = [f"{point:X}\t{name}\n" for point, name in names if name]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text("".join(lines), encoding="ascii")
    unfinished.replace(path)
    print(f"{path}: {len(lines):,} characters of Unicode {unicodedata.unidata_version}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
