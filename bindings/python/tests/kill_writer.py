"""A Python host that writes until it is killed.

Its arguments and lines are those of ``tests/kill/victims.rs`` beside the crate:

    kill_writer.py DIR DURABILITY SEGMENT_BYTES_MAX VERSION SEED
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from typing import Literal

import kvs

THREADS = 4
KEYS_PER_THREAD = 40


def key(number: int) -> bytes:
    return b"key %d" % number


def value(number: int, version: int) -> bytes:
    filler = 20_000 if version % 23 == 0 else version % 300
    return b"%d %d %s" % (number, version, b"x" * filler)


def say(line: str) -> None:
    # One write of less than a page to a pipe arrives whole, whoever else writes.
    os.write(1, line.encode())


def write(store: kvs.Store, steps: dict[int, int]) -> None:
    if len(steps) == 1:
        [(number, version)] = steps.items()
        if version == 0:
            store.discard(key(number))
        else:
            store[key(number)] = value(number, version)
        return
    with store.batch() as batch:
        for number, version in steps.items():
            if version == 0:
                del batch[key(number)]
            else:
                batch[key(number)] = value(number, version)


def write_on(store: kvs.Store, thread: int, version: int, seed: int) -> None:
    try:
        write_for_ever(store, thread, version, seed)
    except kvs.Error as error:
        # One thread for all: otherwise the others would go on.
        os.write(2, f"{error}\n".encode())
        os._exit(1)


def write_for_ever(store: kvs.Store, thread: int, version: int, seed: int) -> None:
    choices = random.Random(seed * THREADS + thread)
    own = range(thread * KEYS_PER_THREAD, (thread + 1) * KEYS_PER_THREAD)
    while True:
        version += 1
        count = 1 if choices.random() < 0.8 else choices.randint(2, 6)
        steps = {
            number: 0 if choices.random() < 0.25 else version
            for number in choices.sample(own, count)
        }
        said = "".join(f" {number}:{version}" for number, version in steps.items())
        say(f"? {thread}{said}\n")
        write(store, steps)
        say(f"! {thread}\n")


def main(directory: str, numbers: list[int]) -> None:
    durability, segment_bytes_max, version, seed = numbers
    syncs: list[Literal["os", "always"] | float] = ["os", 0.003, "always"]
    store = kvs.open(
        directory,
        sync=syncs[durability],
        lock_timeout=5.0,
        segment_bytes_min=0 if segment_bytes_max else None,
        segment_bytes_max=segment_bytes_max or None,
    )
    for thread in range(THREADS):
        threading.Thread(target=write_on, args=(store, thread, version, seed), daemon=True).start()
    while True:
        store.compact()
        time.sleep(0.003)


if __name__ == "__main__":
    main(sys.argv[1], [int(text) for text in sys.argv[2:]])
