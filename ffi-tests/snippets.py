#!/usr/bin/env python3
"""Writes a program of the examples in the comments of a header: snippets.py HEADER > snippets.c

An example stands behind a line that ends in "Example:", indented, up to the next empty line. Each
becomes a function that is given an open store, unless it opens its own. The program calls them all
in the directory that is its argument, and fails if one of them left a failure behind.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

C = ("kvs_store *store", "#include <stdio.h>", "(void)store;")
CXX = ("kvs::store &store", "#include <iostream>", "(void)store;")


def examples(header: str) -> list[str]:
    """The examples of a header, in its order."""
    found = []
    for comment in re.findall(r"/\*.*?\*/", header, flags=re.S):
        lines = [re.sub(r"^\s*(/\*+|\*/|\*)", "", line) for line in comment.splitlines()]
        at = 0
        while at < len(lines):
            at += 1
            if not lines[at - 1].rstrip().endswith("Example:"):
                continue
            code = []
            # One empty line may stand before the code.
            at += at < len(lines) and not lines[at].strip()
            while at < len(lines) and lines[at].startswith("   "):
                code.append(lines[at])
                at += 1
            if not code:
                sys.exit(f"snippets.py: nothing stands behind Example: in {comment[:60]}")
            found.append(textwrap.dedent("\n".join(code)))
    return found


def main() -> int:
    path = Path(sys.argv[1])
    is_cxx = path.suffix == ".hpp"
    parameter, include, unused = CXX if is_cxx else C
    found = examples(path.read_text(encoding="utf-8"))
    print(f'/* Written by snippets.py from {path.name}. */\n{include}\n#include "{path.name}"\n')
    if is_cxx:
        print("#include <string>\n\nnamespace {")
    calls = []
    for number, code in enumerate(found, 1):
        opens = re.search(r"\bkvs_store \*store\b|\bkvs::store store\b", code)
        taken = "" if opens else parameter
        print(f"static void example_{number}({taken or ('' if is_cxx else 'void')}) {{")
        print(textwrap.indent(("" if opens else unused + "\n") + code, "    ") + "\n}\n")
        calls.append(f"example_{number}({'' if opens else 'store'});")
    print(CXX_MAIN if is_cxx else C_MAIN)
    for number, call in enumerate(calls, 1):
        print(f"    {call}\n    if (failed({number})) return 1;")
    print(f'    puts("snippets: {len(found)} examples of {path.name} do what they say");')
    print("    " + ("" if is_cxx else "kvs_store_free(store);\n    ") + "return 0;\n}")
    print(f"snippets.py: {len(found)} examples", file=sys.stderr)
    return 0


FAILED = """static int failed(int number) {
    if (*kvs_last_error() == 0) return 0;
    fprintf(stderr, "example %d: %s\\n", number, kvs_last_error());
    return 1;
}
"""
C_MAIN = (
    FAILED
    + """
int main(int argc, char **argv) {
    kvs_store *store = NULL;

    if (argc != 2 || kvs_open(argv[1], NULL, &store) < 0) return 2;
    if (kvs_set(store, "no", 2, "Oslo", 4) < 0) return 2;
    if (kvs_set(store, "user:1", 6, "Ada", 3) < 0) return 2;"""
)
CXX_MAIN = (
    "#include <cstdio>\n"
    + FAILED
    + """
} // namespace

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    kvs::store store(argv[1]);
    store.set("no", "Oslo");"""
)

if __name__ == "__main__":
    sys.exit(main())
