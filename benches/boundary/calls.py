"""What a call costs from Python: ``calls.py STORE`` prints "name nanoseconds" for one key each.

``next`` is one call of C a key by way of ctypes, ``next_many`` what the package does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from ctypes import byref, c_size_t, c_void_p, string_at

import kvs
from kvs import _abi


def one_by_one(store: kvs.Store, ordered: bool) -> Iterator[tuple[bytes, bytes]]:
    lib, handle, iterator = _abi.lib, store._handle.pointer, c_void_p()
    if ordered:
        status = lib.kvs_scan(handle, None, 0, None, 0, 0, byref(iterator))
    else:
        status = lib.kvs_scan_unordered(handle, 0, byref(iterator))
    assert status == _abi.OK
    key, value, key_len, value_len = c_void_p(), c_void_p(), c_size_t(), c_size_t()
    outputs = byref(key), byref(key_len), byref(value), byref(value_len)
    while lib.kvs_iter_next(iterator, *outputs) == _abi.OK:
        yield string_at(key.value, key_len.value), string_at(value.value, value_len.value)
    lib.kvs_iter_free(iterator)


def main() -> None:
    with kvs.open(sys.argv[1]) as store:
        count = len(store)
        for ordered in False, True:
            for name in "next", "next_many":
                ways = {"next": one_by_one, "next_many": lambda s, o: s.scan(ordered=o)}
                if ordered:
                    next(iter(store.scan()))  # Puts the keys in order.
                began = time.perf_counter_ns()
                met = sum(1 for _ in ways[name](store, ordered))
                spent = time.perf_counter_ns() - began
                assert met == count
                print(f"{'ordered' if ordered else 'unordered'}/{name} {spent / count:.2f}")


main()
