"""A program that lets others look into its store while it runs.

python3 serve.py [DIRECTORY]
kvs-client --addr ADDRESS get answer
"""

import sys

import kvs

directory = sys.argv[1] if len(sys.argv) > 1 else "answers"

with kvs.open(directory) as store, store.serve() as server:
    store[b"answer"] = b"42"
    print(f"listening on {server.address}", flush=True)
    sys.stdin.read()
print("stopped")
