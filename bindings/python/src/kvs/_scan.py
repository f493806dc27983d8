"""Scans: the keys and values of a store, one after the other."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from ctypes import byref, c_size_t, c_void_p, create_string_buffer, string_at
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

from . import _abi
from ._bytes import unpack_records
from ._handle import Ending

if TYPE_CHECKING:
    from ._store import Store

Item = TypeVar("Item")
Records = Iterable[tuple[bytes, bytes]]

# Records are fetched so many bytes at a time: few at first, for whoever looks for one only.
_CAPACITY_FIRST: Final = 4096
_CAPACITY: Final = 1 << 16


class Scan(Ending, Iterator[Item], Generic[Item]):
    """An iterator over keys, or over keys and values; :meth:`Store.scan` makes it.

    It sees each key that is there for the whole of the scan exactly once. Keys that are set or
    removed meanwhile may be seen or not. A value is one that its key had during the scan. It is no
    snapshot.

    A scan that has come to its end, or is collected, is over; as a context manager, or by
    :meth:`close`, it is over earlier. If the store is closed meanwhile, :class:`ClosedError` ends
    it. Threads that share one get each item once.
    """

    __slots__ = (
        "__weakref__",
        "_capacity",
        "_free",
        "_lock",
        "_pointer",
        "_ready",
        "_store",
        "_unpack",
    )

    def __init__(
        self,
        store: Store,
        begin: Callable[[Any], int],
        unpack: Callable[[Records], Iterable[Item]],
    ) -> None:
        """Begin a scan; use :meth:`Store.scan`."""
        pointer = c_void_p()
        status = begin(byref(pointer))
        # A store that is collected is closed, and would end the scan.
        self._store = store
        if status < 0:
            raise store._handle.failure(status)
        self._pointer: int | None = pointer.value
        self._free = weakref.finalize(self, _abi.lib.kvs_iter_free, pointer.value)
        self._free.atexit = False
        self._unpack = unpack
        self._ready: deque[Item] = deque()
        self._capacity = _CAPACITY_FIRST
        # C leaves it to the caller that one thread at a time uses an iterator. A handler of a
        # signal may come back here on the same thread, between two calls of C.
        self._lock = threading.RLock()

    def __iter__(self) -> Scan[Item]:
        """Return the scan itself."""
        return self

    def __next__(self) -> Item:
        """Return the next item."""
        while True:
            try:
                # Atomic, so threads that share a scan get different items.
                return self._ready.popleft()
            except IndexError:  # noqa: PERF203  once for many items
                self._fetch()

    def _fetch(self) -> None:
        """Fetch further items; StopIteration if there are none."""
        with self._lock:
            if self._ready:
                return
            if self._pointer is None:
                raise StopIteration
            used, count, needed = c_size_t(), c_size_t(), c_size_t()
            while True:
                dst = create_string_buffer(self._capacity)
                status = _abi.lib.kvs_iter_next_many(
                    self._pointer, dst, self._capacity, byref(used), byref(count), byref(needed)
                )
                if status != _abi.TOO_SMALL:
                    break
                self._capacity = needed.value
            if status < 0:
                raise self._store._handle.failure(status)
            if status == _abi.END:
                self.close()
                raise StopIteration
            # After one long record the usual size is enough again.
            self._capacity = _CAPACITY
            self._ready.extend(self._unpack(unpack_records(string_at(dst, used.value))))

    def close(self) -> None:
        """End the scan. Further calls of ``next`` raise StopIteration; closing twice is fine."""
        with self._lock:
            self._pointer = None
            self._ready.clear()
            self._free()

    _end = close

    def __repr__(self) -> str:
        state = "ended" if self._pointer is None else "under way"
        return f"<kvs.Scan of {self._store.path!r}, {state}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("a scan cannot be pickled or copied")


def keys_of(records: Records) -> Iterable[bytes]:
    """Return the keys of ``records``."""
    return (key for key, _ in records)


def values_of(records: Records) -> Iterable[bytes]:
    """Return the values of ``records``."""
    return (value for _, value in records)


def items_of(records: Records) -> Iterable[tuple[bytes, bytes]]:
    """Return ``records`` as they are."""
    return records
