#!/usr/bin/env python3
"""Compares the ABI that kvs.h declares with the one on record: check_baseline.py HEADER RECORD

What a compiled program relies on is described by libabigail (abidw) from a stub library, which
defines each function of the header and nothing else: so it does not depend on what a Rust compiler
says of its types, and it is small. Beside the functions it holds, as enumerators, the numbers of
the header and where each member of kvs_stats lies.

A change that old programs would not survive fails, unless KVS_ABI_VERSION changes with it or is
still 0. An addition fails too, gently, so that it is seen in review: --write puts either on record.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from generate import functions

DESCRIBE = ["abidw", "--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--no-elf-needed"]
# Of a structure that is passed with its size the offsets say what may not change.
GROWS = "[suppress_type]\n  name = kvs_stats\n  has_data_member_inserted_at = end\n"
# The version is another at every release, and the number of the ABI is looked at by itself.
NO_ABI = re.compile(r"KVS_(VERSION_\w+|ABI_VERSION|API|MUST_USE|H)$")


def stub(header: str) -> str:
    """C that defines what the header declares."""
    code = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    numbers = re.findall(r"^#define (KVS_\w+) ", code, flags=re.M)
    numbers = [name for name in numbers if not NO_ABI.match(name)]
    members = re.search(r"typedef struct \{(.*?)\} kvs_stats;", code, flags=re.S)
    assert members, "kvs.h has no kvs_stats"
    offsets = [name for name in re.findall(r"(\w+);", members[1])]
    enums = {
        # Apart, because one type holds no negative numbers beside the largest ones.
        "statuses": [f"at_{name} = {name}" for name in numbers if name.startswith("KVS_ERR_")],
        "numbers": [f"at_{name} = {name}" for name in numbers if not name.startswith("KVS_ERR_")],
        "offsets": [f"at_{name} = offsetof(kvs_stats, {name})" for name in offsets],
    }
    lines = ['#include <stdlib.h>\n#include "kvs.h"']
    lines += [f"enum {name} {{ {', '.join(values)} }} {name};" for name, values in enums.items()]
    for function in functions(header):
        parameters = [f"{p.type} {p.name}" for p in function.parameters]
        lines.append(
            f"{function.result} {function.name}({', '.join(parameters) or 'void'}) {{ abort(); }}"
        )
    return "\n".join(lines) + "\n"


def described(header: Path, abi: str, scratch: str) -> Path:
    """The ABI as libabigail has it."""
    Path(scratch, "stub.c").write_text(stub(header.read_text(encoding="utf-8")), encoding="utf-8")
    include = f"-I{header.resolve().parent}"
    name = f"-Wl,-soname,libkvs.so.{abi}"
    command = ["cc", "-std=gnu99", "-g", "-shared", "-fPIC", include, name, "stub.c", "-o", "stub.so"]
    subprocess.run(command, cwd=scratch, check=True)
    subprocess.run([*DESCRIBE, "--out-file", "stub.abi", "stub.so"], cwd=scratch, check=True)
    return Path(scratch, "stub.abi")


def difference(before: Path, after: Path, *options: str) -> str:
    """What abidiff says; nothing if there is no difference."""
    done = subprocess.run(
        ["abidiff", *options, str(before), str(after)], capture_output=True, text=True, check=False
    )
    # Its exit status has a bit for what went wrong, and others for what is different.
    if done.returncode & 3:
        sys.exit(f"check_baseline: abidiff fails: {done.stdout}{done.stderr}")
    return done.stdout if done.returncode else ""


def abi_of(text: str) -> str:
    found = re.search(r"(?:#define KVS_ABI_VERSION |soname='libkvs\.so\.)(\d+)", text)
    assert found, "no ABI number"
    return found[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("header", type=Path)
    parser.add_argument("record", type=Path)
    parser.add_argument("--write", action="store_true", help="put the header's ABI on record")
    args = parser.parse_args()
    abi = abi_of(args.header.read_text(encoding="utf-8"))

    with tempfile.TemporaryDirectory() as scratch:
        now = described(args.header, abi, scratch)
        breaks = news = ""
        recorded_abi = "0"
        if args.record.exists():
            recorded_abi = abi_of(args.record.read_text(encoding="utf-8"))
            grows = Path(scratch, "grows")
            grows.write_text(GROWS, encoding="utf-8")
            breaks = difference(
                args.record, now, "--no-added-syms", "--suppressions", str(grows)
            )
            news = difference(args.record, now, "--harmless")
        if breaks and recorded_abi == abi != "0":
            print(f"{breaks}\ncheck_baseline: programs break; KVS_ABI_VERSION must change",
                  file=sys.stderr)
            return 1
        if args.write:
            args.record.write_text(now.read_text(encoding="utf-8"), encoding="utf-8")
            return 0
    if breaks or news or recorded_abi != abi or not args.record.exists():
        print(f"{news}\ncheck_baseline: {args.record} is not current; if this is meant, run "
              f"`make abi` and commit it", file=sys.stderr)
        return 1
    print(f"check_baseline: ABI {abi} is the one on record")
    return 0


if __name__ == "__main__":
    sys.exit(main())
