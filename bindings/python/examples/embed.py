"""A program that remembers: counts its runs in a store.

python3 embed.py [DIRECTORY]
"""

import sys

import kvs

directory = sys.argv[1] if len(sys.argv) > 1 else "runs"

with kvs.open(directory, sync="always") as store:
    runs = int(store.get(b"runs", b"0")) + 1
    store[b"runs"] = str(runs).encode()
    print(f"run {runs} of this program on {store.path}")
