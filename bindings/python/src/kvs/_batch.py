"""Batches: writes that happen together or not at all."""

from __future__ import annotations

import threading
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from . import _abi
from ._bytes import Bytes, as_bytes
from ._expiry import Seconds, expiry_of

if TYPE_CHECKING:
    from ._store import Store


class Batch:
    """Writes that are gathered in memory; :meth:`Store.batch` makes it.

    As a context manager it is written when the block ends, and thrown away if the block fails:

    >>> import kvs
    >>> with kvs.open("accounts") as store:
    ...     with store.batch(sync=True) as batch:
    ...         batch[b"from"] = b"90"
    ...         batch[b"to"] = b"110"
    ...         del batch[b"pending"]
    ...     store[b"to"]
    b'110'

    Without a block, :meth:`write` writes it. A later write of a key wins over an earlier one. Other
    threads see all of a batch or nothing, and so does a crash. It cannot be read from. A batch may
    be used by several threads, one call after the other.
    """

    __slots__ = ("__weakref__", "_lock", "_pointer", "_store", "_sync")

    def __init__(self, store: Store, *, sync: bool) -> None:
        """Make an empty batch; use :meth:`Store.batch`."""
        self._store = store
        self._sync = sync
        # C leaves it to the caller that one thread at a time uses a batch. A handler of a signal
        # may come back here on the same thread, between two calls of C.
        self._lock = threading.RLock()
        self._pointer: int = _abi.lib.kvs_batch_new()
        weakref.finalize(self, _abi.lib.kvs_batch_free, self._pointer).atexit = False

    def __setitem__(self, key: Bytes, value: Bytes) -> None:
        """Add: set ``key`` to ``value``."""
        key, value = as_bytes("a key", key), as_bytes("a value", value)
        with self._lock:
            self._done(_abi.lib.kvs_batch_set(self._pointer, key, len(key), value, len(value)))

    def set(
        self,
        key: Bytes,
        value: Bytes,
        *,
        expiry_ms: int | None = None,
        ttl: Seconds | None = None,
    ) -> None:
        """Add: set ``key`` to ``value``, and let it expire as :meth:`Store.set` says.

        ``ttl`` counts from this call, not from the writing of the batch.
        """
        key, value = as_bytes("a key", key), as_bytes("a value", value)
        at = expiry_of(expiry_ms, ttl)
        with self._lock:
            self._done(
                _abi.lib.kvs_batch_set_with_expiry(
                    self._pointer, key, len(key), value, len(value), at
                )
            )

    def __delitem__(self, key: Bytes) -> None:
        """Add: remove ``key``. If it is not there when the batch is written, that is no error."""
        key = as_bytes("a key", key)
        with self._lock:
            self._done(_abi.lib.kvs_batch_remove(self._pointer, key, len(key)))

    def __len__(self) -> int:
        """Return the number of writes in the batch."""
        with self._lock:
            count: int = _abi.lib.kvs_batch_count(self._pointer)
        return count

    def __bool__(self) -> bool:
        """Return True: an empty batch is a batch."""
        return True

    def clear(self) -> None:
        """Take all writes out."""
        with self._lock:
            _abi.lib.kvs_batch_clear(self._pointer)

    def write(self) -> None:
        """Apply all of it to the store, or nothing, and leave the batch empty.

        If this fails the batch keeps its writes, and may be written again.

        Raises:
            TooLargeError: it takes more than 96 MiB, its longest write not counted.
        """
        flags = _abi.WRITE_SYNC if self._sync else 0
        with self._lock:
            self._done(_abi.lib.kvs_write(self._store._handle.pointer, self._pointer, flags))
            self.clear()

    def __enter__(self) -> Batch:
        """Return the batch itself, to be written at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write the batch, or clear it if the block failed."""
        if kind is None:
            self.write()
        else:
            self.clear()

    def __repr__(self) -> str:
        return f"<kvs.Batch of {len(self)} writes for {self._store.path!r}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("a batch cannot be pickled or copied")

    def _done(self, status: int) -> None:
        if status < 0:
            raise self._store._handle.failure(status)
