"""A Python program that embeds kvs.

It loads real data into a store, looks some of it up, and serves the open store to other programs
until its input ends. The C program in ffi-tests/demo does the same, and takes the same arguments.

python3 host.py [--port-file FILE] NAMES.tsv DIRECTORY [CODEPOINT...]

NAMES.tsv holds one assigned Unicode character per line: its code point in hexadecimal, a tab, and
its name. The key is the code point as it is written there, the value is the name.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path

import kvs


def main() -> None:
    """Load, look up, serve."""
    parser = argparse.ArgumentParser(description="Embed kvs, load NAMES.tsv, and serve it.")
    parser.add_argument("--port-file", type=Path, help="where to write the port of the server")
    parser.add_argument("names", type=Path, metavar="NAMES.tsv")
    parser.add_argument("directory", metavar="DIRECTORY")
    parser.add_argument("points", nargs="*", metavar="CODEPOINT", default=["1F980", "41", "20AC"])
    arguments = parser.parse_args()

    lines = arguments.names.read_bytes().splitlines()
    print(f"libkvs {kvs.__version__} in Python {platform.python_version()}")
    with kvs.open(arguments.directory) as store:
        load(store, lines)
        check(store, lines)
        for point in arguments.points:
            name = store.get(point.encode(), b"is not assigned").decode()
            print(f"  U+{int(point, 16):04X} {name}")
        with store.serve() as server:
            print(f"listening on {server.address}", flush=True)
            if arguments.port_file:
                write_port(arguments.port_file, server.port)
            sys.stdin.read()
    print("stopped", flush=True)


def load(store: kvs.Store, lines: list[bytes]) -> None:
    """Set a key for each line, and make them durable."""
    start = time.perf_counter()
    for line in lines:
        point, _, name = line.partition(b"\t")
        store[point] = name
    store.sync()
    told("loaded", len(lines), start, f", synced; the store holds {len(store)} keys")


def check(store: kvs.Store, lines: list[bytes]) -> None:
    """Read every record back and compare it with its line."""
    start = time.perf_counter()
    for number, line in enumerate(lines, 1):
        point, _, name = line.partition(b"\t")
        if store[point] != name:
            sys.exit(f"line {number}: the store holds another name for {point.decode()}")
    told("read", len(lines), start, ", each as in the file")


def told(what: str, count: int, start: float, more: str) -> None:
    """Print what was done and how fast."""
    seconds = time.perf_counter() - start
    print(
        f"{what} {count} records in {seconds * 1e3:.0f} ms ({count / seconds:.0f} records/s){more}"
    )


def write_port(path: Path, port: int) -> None:
    """Write the port whole or not at all: whoever waits for the file may read it at once."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(f"{port}\n", encoding="ascii")
    unfinished.replace(path)


if __name__ == "__main__":
    main()
