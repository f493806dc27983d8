#!/usr/bin/env python3
"""Checks what compilers do not: that header, libraries and tests are about the same functions.

* the shared library exports exactly the functions of the header, no more, no fewer;
* its inner name (SONAME) carries the ABI number of the header;
* the static library defines no global name that could clash with a program's;
* every function of the header is called by the tests.
"""

import argparse
import platform
import re
import subprocess
import sys
from pathlib import Path

from generate import functions

# Names in a Rust archive that no program can have: mangled ones, and those that begin with two
# underscores, which are the compiler's.
RESERVED = re.compile(r"_ZN|_R|__|DW\.ref\.|anon\.|rust_eh_personality$")

failures = 0


def check(holds: bool, text: str) -> None:
    global failures
    if not holds:
        failures += 1
        print(f"check_abi: {text}", file=sys.stderr)


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def symbols(path: str, *options: str) -> list[tuple[str, str]]:
    """(type letter, name) of each symbol."""
    lines = output_of("nm", *options, path).splitlines()
    fields = [line.split() for line in lines]
    return [(f[-2], f[-1]) for f in fields if len(f) >= 2 and len(f[-2]) == 1]


def check_shared(path: str, functions: set[str], abi: str) -> None:
    exported = {name.lstrip("_") for _, name in symbols(path, "-D", "--defined-only")}
    check(not functions - exported, f"not exported: {sorted(functions - exported)}")
    check(not exported - functions, f"exported, not in the header: {sorted(exported - functions)}")
    if platform.system() == "Linux":
        inner = re.search(r"SONAME.*\[(.*)\]", output_of("readelf", "-d", path))
        name = inner.group(1) if inner else None
        check(name == f"libkvs.so.{abi}", f"SONAME is {name}, and the header says ABI {abi}")


def check_static(path: str, functions: set[str]) -> None:
    # Weak ones (the compiler's helpers, memcpy) give way to a program's own.
    defined = {
        name for kind, name in symbols(path, "-g", "--defined-only", "--quiet") if kind in "TDBRC"
    }
    check(functions <= defined, f"not in the archive: {sorted(functions - defined)}")
    foreign = {n for n in defined - functions if not RESERVED.match(n)}
    check(not foreign, f"global names that could clash: {sorted(foreign)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--header", required=True)
    parser.add_argument("--shared", required=True)
    parser.add_argument("--static", required=True)
    parser.add_argument("--objects", nargs="+", required=True)
    args = parser.parse_args()

    header = Path(args.header).read_text(encoding="utf-8")
    found = {function.name for function in functions(header)}
    abi = re.search(r"#define KVS_ABI_VERSION (\d+)", header)
    check(len(found) == header.count("\nKVS_API"), "not every prototype was understood")

    check_shared(args.shared, found, abi.group(1) if abi else "?")
    check_static(args.static, found)

    called = {name.lstrip("_") for path in args.objects for _, name in symbols(path, "-u")}
    check(not found - called, f"no test calls {sorted(found - called)}")

    if failures == 0:
        print(f"check_abi: {len(found)} functions")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
