"""The store: a directory of keys and values, as a Python object."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    MutableMapping,
    ValuesView,
)
from ctypes import byref, c_size_t, c_uint64, c_void_p, create_string_buffer, string_at
from functools import partial
from typing import Any, Final, Literal, NoReturn, TypeVar, Union, overload

from . import _abi, _log, _options
from ._batch import Batch
from ._bytes import Bytes, Pairs, as_bytes, pack_keys, unpack_values
from ._errors import LockedError, failure
from ._expiry import Seconds, expiry_of, told
from ._handle import Handle, Held, own
from ._reports import Stats, VerifyReport, report_of, stats_of
from ._scan import Item, Records, Scan, items_of, keys_of, values_of
from ._server import Server

Default = TypeVar("Default")
Sync = Union[Literal["os", "always"], float]

_READ_MODES: Final = {"mapped": _abi.READ_MAPPED, "positioned": _abi.READ_POSITIONED}
_WRITE_MODES: Final = {"tail": _abi.WRITE_MODE_TAIL, "direct": _abi.WRITE_MODE_DIRECT}

# Longest wait inside one C call, in seconds: signals such as Ctrl-C are handled in between.
_WAIT_SECONDS: Final = 0.2

_get = _abi.lib.kvs_get
_get_into = _abi.lib.kvs_get_into
_set = _abi.lib.kvs_set
_OK: Final = _abi.OK

# What `pop` was not given.
_MISSING: Final = object()


def open(  # noqa: A001  as in gzip, shelve and dbm
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    create: bool = True,
    exclusive: bool = False,
    read_only: bool = False,
    sync: Sync | None = None,
    engine: str | None = None,
    read_mode: Literal["mapped", "positioned"] | None = None,
    write_mode: Literal["tail", "direct"] | None = None,
    lock_timeout: float = 0.0,
    segment_bytes_min: int | None = None,
    segment_bytes_max: int | None = None,
    ordered: bool = False,
    auto_compaction: bool = True,
    compaction_bytes_per_second_max: int | None = None,
    compaction_dead_percent_min: int | None = None,
) -> Store:
    """Open the store in the directory ``path``.

    Only one process can have a directory open, and it can have it open once. Beside it, any number
    can have it open with ``read_only=True``.

    Args:
        path: the directory. It is created with its parents if it is missing.
        create: whether to create a store where there is none.
        exclusive: whether to refuse a directory that holds a store already.
        read_only: whether to open a view of the store as it is now, which another process may be
            writing: nothing is locked or written, writes raise :class:`ReadOnlyError`, and
            :meth:`Store.refresh` shows what has been written since.
        sync: what a write that has returned survives. ``"os"``: the death of the process.
            A number of seconds: as ``"os"``, and a loss of power costs at most the writes of the
            last so many seconds. ``"always"``: a loss of power. The default is 0.5 seconds.
        engine: ``"kvs"`` or ``"sled"``; by default what the directory holds, else ``"kvs"``.
        read_mode: ``"mapped"`` is fastest; with ``"positioned"`` a failing disk is an error and
            not the signal SIGBUS.
        write_mode: ``"tail"`` writes through a small mapped file and is fastest; with ``"direct"``
            a failing disk is an error and not the signal SIGBUS. ``stats().has_tail`` says
            whether the file system allows the former.
        lock_timeout: seconds to wait for another opener to let go.
        segment_bytes_min: smallest size at which a segment file is sealed.
        segment_bytes_max: largest size of a segment file; a longer record has its own.
        ordered: whether to put the keys in order when the store is opened, rather than when they
            are iterated over for the first time; costs memory, each key and about 75 bytes.
        auto_compaction: whether to give dead space back in the background.
        compaction_bytes_per_second_max: most bytes that compaction copies per second, that of
            :meth:`compact` too.
        compaction_dead_percent_min: from how much of it being dead on a file is compacted in the
            background, 10 to 90 percent. Less saves space, and copies more.

    Raises:
        LockedError: it is open already.
        StoreNotADirectoryError: the path is something else.
        StoreNotFoundError, StoreExistsError: as ``create`` and ``exclusive`` ask.
        StorePermissionError, StoreIOError: the operating system refuses.
        CorruptionError, FormatError, WrongEngineError: it is not a store for this call.
        ValueError: an option has a value that cannot work.
    """
    name = os.fsdecode(path)
    options: dict[int, int | str | None] = {
        _abi.OPT_ENGINE: engine,
        _abi.OPT_READ_MODE: _options.choice("read_mode", read_mode, _READ_MODES),
        _abi.OPT_WRITE_MODE: _options.choice("write_mode", write_mode, _WRITE_MODES),
        _abi.OPT_CREATE: int(create),
        _abi.OPT_EXCLUSIVE: int(exclusive),
        _abi.OPT_READ_ONLY: int(read_only),
        _abi.OPT_SEGMENT_BYTES_MIN: segment_bytes_min,
        _abi.OPT_SEGMENT_BYTES_MAX: segment_bytes_max,
        _abi.OPT_ORDERED: int(ordered),
        _abi.OPT_AUTO_COMPACTION: int(auto_compaction),
        _abi.OPT_COMPACTION_BYTES_PER_SECOND_MAX: compaction_bytes_per_second_max,
        _abi.OPT_COMPACTION_DEAD_PERCENT_MIN: compaction_dead_percent_min,
        **_durability(sync),
    }
    _log.start()
    deadline = time.monotonic() + _options.milliseconds("lock_timeout", lock_timeout) / 1000
    while True:
        left = max(0.0, deadline - time.monotonic())
        wait = min(left, _WAIT_SECONDS)
        options[_abi.OPT_LOCK_TIMEOUT_MS] = _options.milliseconds("lock_timeout", wait)
        try:
            return Store(_open(name, options), name, read_only=read_only)
        except LockedError:
            if wait == left:
                raise


def _durability(sync: Sync | None) -> _options.Options:
    """Return the options that ``sync`` stands for."""
    if sync is None:
        return {}
    if sync == "os":
        return {_abi.OPT_DURABILITY: _abi.DURABILITY_OS}
    if sync == "always":
        return {_abi.OPT_DURABILITY: _abi.DURABILITY_SYNC}
    if isinstance(sync, str):
        raise ValueError(f"sync must be 'os', 'always' or a number of seconds, not {sync!r}")
    return {
        _abi.OPT_DURABILITY: _abi.DURABILITY_INTERVAL,
        _abi.OPT_SYNC_INTERVAL_MS: _options.milliseconds("sync", sync),
    }


def _open(path: str, options: _options.Options) -> int:
    pointer = c_void_p()
    utf8 = _utf8(path)
    with _options.as_handle(options) as handle:
        status = _abi.lib.kvs_open(utf8, handle, byref(pointer))
    if status != _OK:
        raise failure(status, path)
    return pointer.value or 0


def _utf8(path: str) -> bytes:
    """Return ``path`` for C, which says so when a name that Python escaped is not UTF-8."""
    if "\0" in path:
        raise ValueError("embedded null character in path")
    return path.encode("utf-8", "surrogateescape")


def _bound(key: Bytes | None) -> tuple[bytes | None, int]:
    """Return a bound of a scan for C; None for none."""
    data = None if key is None else as_bytes("a bound", key)
    return data, len(data or b"")


class _Scratch:
    """Memory that values are copied into by the library, reused by the calls of one thread."""

    __slots__ = ("buffer", "capacity", "length", "length_out")

    # A value up to this size (1 MiB) is copied into the scratch memory, and a longer one is lent by
    # the library: then the copy dwarfs the extra calls, and a thread does not hold that much.
    CAPACITY_MAX: Final = 1 << 20

    def __init__(self) -> None:
        self.length = c_size_t()
        self.length_out = byref(self.length)
        self.make_room(4096)

    def make_room(self, length: int) -> None:
        """Provide room for ``length`` bytes, by doubling."""
        self.capacity = 1 << (length - 1).bit_length()
        # A slice of it is `bytes`, which is not what its type says.
        self.buffer: Any = create_string_buffer(self.capacity)


def _taken(lent: c_void_p) -> bytes | None:
    """Return what a buffer of the library holds, and free it; None for NULL."""
    if lent.value is None:
        return None
    try:
        return string_at(_abi.lib.kvs_buf_data(lent), _abi.lib.kvs_buf_len(lent))
    finally:
        _abi.lib.kvs_buf_free(lent)


class _PerThread(threading.local):
    # Taken out while in use: a signal handler or a finalizer can run between the call that fills
    # the scratch memory and the copy out of it, and may read from a store too.
    scratch: _Scratch | None = None


_per_thread = _PerThread()


class Store(Held, MutableMapping[bytes, bytes]):
    """A key-value store in one directory; :func:`kvs.open` makes it.

    It is used like a dictionary of ``bytes``. Keys and values are ``bytes``, ``bytearray`` or
    ``memoryview``, and come back as ``bytes``; a ``str`` is a :class:`TypeError`. An absent key is
    a :class:`KeyError` where a dictionary raises one. Iteration goes by the order of the keys'
    bytes, and keys that are set or removed meanwhile may be seen or not: see :meth:`scan`.
    ``setdefault``, ``pop``, ``popitem`` and ``update`` are one step each: no other thread comes
    between.

    A store may be used by any number of threads at once, and calls release the GIL. Any call may
    race with :meth:`close`: it is done before, or raises :class:`ClosedError`.

    Use it as a context manager, or call :meth:`close`. A store that is collected or still open when
    the interpreter exits is closed too, but in the first case a :class:`ResourceWarning` tells of
    it and a failure to write goes unseen.

    After ``os.fork()`` the child cannot use the store (:class:`ForkedError`), and the parent goes
    on: fork before opening a store, or use the "spawn" start method of multiprocessing. A store
    cannot be pickled: pass its path to the process that shall open it.

    >>> import kvs
    >>> with kvs.open("cities") as store:
    ...     store[b"no"] = b"Oslo"
    ...     store[b"no"], store.get(b"se"), b"se" in store, len(store)
    (b'Oslo', None, False, 1)
    """

    __slots__ = ("__weakref__", "_pointer", "_read_only")

    def __init__(self, pointer: int, path: str, *, read_only: bool) -> None:
        """Take over ``pointer``; use :func:`kvs.open`."""
        self._pointer = pointer
        self._read_only = read_only
        self._handle = Handle("store", path, pointer, _abi.lib.kvs_store_free)
        own(self, self._handle)

    @property
    def path(self) -> str:
        """The directory, as it was given to :func:`kvs.open`."""
        return self._handle.path

    @property
    def read_only(self) -> bool:
        """Whether it was opened for reading only."""
        return self._read_only

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has been called."""
        return self._handle.ended

    def __getitem__(self, key: Bytes) -> bytes:
        """Return the value of ``key``; KeyError if it is absent."""
        value = self._lookup(key)
        if value is None:
            raise KeyError(key)
        return value

    @overload
    def get(self, key: Bytes) -> bytes | None: ...
    @overload
    def get(self, key: Bytes, default: Default) -> bytes | Default: ...

    def get(self, key: Bytes, default: Default | None = None) -> bytes | Default | None:
        """Return the value of ``key``, or ``default`` if it is absent."""
        value = self._lookup(key)
        return default if value is None else value

    def _lookup(self, key: Bytes) -> bytes | None:
        if type(key) is not bytes:
            key = as_bytes("a key", key)
        scratch, _per_thread.scratch = _per_thread.scratch, None
        if scratch is None:
            scratch = _Scratch()
        while True:
            status = _get_into(
                self._pointer,
                key,
                len(key),
                scratch.buffer,
                scratch.capacity,
                scratch.length_out,
            )
            length = scratch.length.value
            if status != _abi.TOO_SMALL:
                value: bytes | None = scratch.buffer[:length] if status == _OK else None
                break
            if length > _Scratch.CAPACITY_MAX:
                status, value = self._lookup_long(key)
                break
            # The value can have grown again by the next call; then there is one more.
            scratch.make_room(length)
        _per_thread.scratch = scratch
        if status < 0:
            raise self._handle.failure(status)
        return value

    def _lookup_long(self, key: bytes) -> tuple[int, bytes | None]:
        """Look up a value that is too long for the scratch memory."""
        lent = c_void_p()
        status: int = _get(self._pointer, key, len(key), byref(lent))
        return status, _taken(lent)

    def __setitem__(self, key: Bytes, value: Bytes) -> None:
        """Set ``key`` to ``value``, whether or not it was there."""
        if type(key) is not bytes:
            key = as_bytes("a key", key)
        if type(value) is not bytes:
            value = as_bytes("a value", value)
        status = _set(self._pointer, key, len(key), value, len(value))
        if status < 0:
            raise self._handle.failure(status)

    def set(
        self,
        key: Bytes,
        value: Bytes,
        *,
        expiry_ms: int | None = None,
        ttl: Seconds | None = None,
    ) -> None:
        """Set ``key`` to ``value``, and let it expire: from then on it is absent everywhere.

        Without a time this is ``store[key] = value``, which does not expire. A time in the past is
        no error: the key is absent at once. Setting a key anew takes its expiry off.

        >>> import kvs
        >>> with kvs.open("sessions") as store:
        ...     store.set(b"7", b"ada", ttl=3600)
        ...     store.persist(b"7"), store.persist(b"7"), store.expiry(b"7")
        (True, False, None)

        Args:
            key: the key.
            value: its new value.
            expiry_ms: the time, in milliseconds since the Unix epoch by the system's clock; of a
                ``datetime`` with a time zone ``int(when.timestamp() * 1000)``.
            ttl: instead, how long it stays from now on: seconds, or a ``timedelta``.

        Raises:
            UnsupportedError: the engine has no expiry.
        """
        key, value = as_bytes("a key", key), as_bytes("a value", value)
        at = expiry_of(expiry_ms, ttl)
        self._done(
            _abi.lib.kvs_set_with_expiry(self._pointer, key, len(key), value, len(value), at)
        )

    def expiry(self, key: Bytes) -> int | None:
        """Return when ``key`` expires, in milliseconds since the Unix epoch; None for never.

        KeyError if it is absent, or has expired.
        """
        data = as_bytes("a key", key)
        at = c_uint64()
        if not self._done(
            _abi.lib.kvs_get_expiry(self._pointer, data, len(data), byref(at)),
        ):
            raise KeyError(key)
        return told(at.value)

    def set_expiry(
        self, key: Bytes, *, expiry_ms: int | None = None, ttl: Seconds | None = None
    ) -> int | None:
        """Let ``key`` expire as :meth:`set` says, or never; return what :meth:`expiry` was.

        Its value stays, and no other write comes between. KeyError if it is absent.
        """
        data = as_bytes("a key", key)
        at = expiry_of(expiry_ms, ttl)
        before = c_uint64()
        if not self._done(
            _abi.lib.kvs_set_expiry(self._pointer, data, len(data), at, byref(before)),
        ):
            raise KeyError(key)
        return told(before.value)

    def persist(self, key: Bytes) -> bool:
        """Take the expiry of ``key`` off, and return whether it had one; KeyError if absent."""
        return self.set_expiry(key) is not None

    def __delitem__(self, key: Bytes) -> None:
        """Remove ``key``; KeyError if it is absent."""
        if not self.discard(key):
            raise KeyError(key)

    def discard(self, key: Bytes) -> bool:
        """Remove ``key`` if it is there, and return whether it was."""
        data = as_bytes("a key", key)
        return self._done(_abi.lib.kvs_remove(self._pointer, data, len(data)))

    def __contains__(self, key: object) -> bool:
        """Return whether ``key`` is there; cheaper than reading its value."""
        data = as_bytes("a key", key)  # type: ignore[arg-type]  # refuses what is not bytes-like
        return self._done(_abi.lib.kvs_contains(self._pointer, data, len(data)))

    def __len__(self) -> int:
        """Return the number of keys; costs the same however many there are.

        Keys that have expired count until compaction has dropped them, as :meth:`compact` does.
        """
        count = c_uint64()
        self._done(_abi.lib.kvs_len(self._pointer, byref(count)))
        return count.value

    def __bool__(self) -> bool:
        """Return whether there is any key."""
        return len(self) > 0

    def get_many(self, keys: Iterable[Bytes]) -> list[bytes | None]:
        """Return the values of ``keys`` in their order, None for each that is absent.

        Costs one call, and is faster than one :meth:`get` for each. Each key is looked up by
        itself: writes may fall between. The values together may have 1 GiB.
        """
        wanted = [as_bytes("a key", key) for key in keys]
        packed = pack_keys(wanted)
        lent = c_void_p()
        self._done(
            _abi.lib.kvs_get_many(self._pointer, packed, len(packed), len(wanted), byref(lent))
        )
        return list(unpack_values(_taken(lent) or b""))

    def swap(self, key: Bytes, value: Bytes | None) -> bytes | None:
        """Set ``key`` to ``value``, or remove it if that is None, and return what it was before.

        None is absent there too. No other write of the key comes between.
        """
        key = as_bytes("a key", key)
        new = None if value is None else as_bytes("a value", value)
        lent = c_void_p()
        self._done(
            _abi.lib.kvs_swap(self._pointer, key, len(key), new, len(new or b""), byref(lent))
        )
        return _taken(lent)

    def compare_and_swap(self, key: Bytes, expected: Bytes | None, new: Bytes | None) -> bool:
        """Set ``key`` to ``new`` if it is ``expected``, and return whether it was.

        None is absent: expected, the key must not be there; as the new value, it is removed. An
        empty value is something else.
        """
        return self._compare_and_swap(key, expected, new)[0]

    def _compare_and_swap(
        self, key: Bytes, expected: Bytes | None, new: Bytes | None
    ) -> tuple[bool, bytes | None]:
        """Return whether it was swapped, and else what the key is."""
        key = as_bytes("a key", key)
        old = None if expected is None else as_bytes("a value", expected)
        wanted = None if new is None else as_bytes("a value", new)
        actual = c_void_p()
        swapped = self._done(
            _abi.lib.kvs_compare_and_swap(
                self._pointer,
                key,
                len(key),
                old,
                len(old or b""),
                wanted,
                len(wanted or b""),
                byref(actual),
            )
        )
        return swapped, _taken(actual)

    def setdefault(self, key: Bytes, default: Bytes) -> bytes:
        """Return the value of ``key``; if it is absent, set it to ``default`` and return that."""
        default = as_bytes("a value", default)
        swapped, actual = self._compare_and_swap(key, None, default)
        return default if swapped or actual is None else actual

    @overload
    def pop(self, key: Bytes) -> bytes: ...
    @overload
    def pop(self, key: Bytes, default: Default) -> bytes | Default: ...

    def pop(self, key: Bytes, default: Any = _MISSING) -> Any:
        """Remove ``key`` and return its value; ``default``, or KeyError, if it is absent."""
        value = self.swap(key, None)
        if value is not None:
            return value
        if default is _MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[bytes, bytes]:
        """Remove the first key and return it with its value; KeyError if there is none."""
        for key in self.scan(keys_only=True):
            value = self.swap(key, None)
            # Another thread can have been faster.
            if value is not None:
                return key, value
        raise KeyError("the store is empty")

    def update(  # type: ignore[override]
        self, other: Pairs | Iterable[tuple[Bytes, Bytes]] = (), /
    ) -> None:
        """Set all keys of ``other`` to its values, as one batch: all of them or none."""
        batch = self.batch()
        for key, value in other.items() if isinstance(other, Pairs) else other:
            batch[key] = value
        batch.write()

    def clear(self) -> None:
        """Remove every key, at the cost of one write however many there are.

        After a crash all of them are gone or none is; other threads may see some of them gone
        before others.
        """
        self._done(_abi.lib.kvs_clear(self._pointer))

    def batch(self, *, sync: bool = False) -> Batch:
        """Return an empty :class:`Batch`, whose writes happen together or not at all.

        Args:
            sync: whether writing it returns only when it survives a loss of power.
        """
        return Batch(self, sync=sync)

    @overload
    def scan(
        self,
        start: Bytes | None = None,
        stop: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        reverse: bool = False,
        ordered: bool = True,
        keys_only: Literal[False] = False,
    ) -> Scan[tuple[bytes, bytes]]: ...
    @overload
    def scan(
        self,
        start: Bytes | None = None,
        stop: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        reverse: bool = False,
        ordered: bool = True,
        keys_only: Literal[True],
    ) -> Scan[bytes]: ...

    def scan(
        self,
        start: Bytes | None = None,
        stop: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        reverse: bool = False,
        ordered: bool = True,
        keys_only: bool = False,
    ) -> Scan[tuple[bytes, bytes]] | Scan[bytes]:
        """Return an iterator over keys and their values, in the order of the keys' bytes.

        >>> import kvs
        >>> with kvs.open("cities") as store:
        ...     store.update({b"no": b"Oslo", b"se": b"Stockholm", b"nl": b"Amsterdam"})
        ...     list(store.scan(prefix=b"n"))
        ...     list(store.scan(b"no", keys_only=True, reverse=True))
        [(b'nl', b'Amsterdam'), (b'no', b'Oslo')]
        [b'se', b'no']

        The first scan in order of a store puts its keys in order; see ``ordered`` of
        :func:`kvs.open`.

        Args:
            start: the smallest key that may be seen.
            stop: the smallest key behind, which is not seen any more.
            prefix: what the keys begin with; not together with ``start`` and ``stop``.
            reverse: whether to go from the last key to the first.
            ordered: False sees every key in no order, which is cheapest; not together with the
                arguments above.
            keys_only: whether to leave the values out.
        """
        what = [start is not None or stop is not None, prefix is not None]
        if sum(what) > 1 or (not ordered and (any(what) or reverse)):
            raise ValueError("a scan is by start and stop, or by prefix, or not ordered")
        flags = _abi.SCAN_KEYS_ONLY if keys_only else 0
        if reverse:
            flags |= _abi.SCAN_REVERSE
        if not ordered:
            begin = partial(_abi.lib.kvs_scan_unordered, self._pointer, flags)
        elif prefix is not None:
            data = as_bytes("a prefix", prefix)
            begin = partial(_abi.lib.kvs_scan_prefix, self._pointer, data, len(data), flags)
        else:
            begin = partial(_abi.lib.kvs_scan, self._pointer, *_bound(start), *_bound(stop), flags)
        return Scan(self, begin, keys_of) if keys_only else Scan(self, begin, items_of)

    def _scan_all(self, unpack: Callable[[Records], Iterable[Item]]) -> Scan[Item]:
        return Scan(self, partial(_abi.lib.kvs_scan, self._pointer, None, 0, None, 0, 0), unpack)

    def __iter__(self) -> Iterator[bytes]:
        """Return an iterator over the keys, in order."""
        return self.scan(keys_only=True)

    def __reversed__(self) -> Iterator[bytes]:
        """Return an iterator over the keys, from the last to the first."""
        return self.scan(keys_only=True, reverse=True)

    def items(self) -> ItemsView[bytes, bytes]:
        """Return a view of the keys with their values, in the order of the keys."""
        return _Items(self)

    def values(self) -> ValuesView[bytes]:
        """Return a view of the values, in the order of their keys."""
        return _Values(self)

    def refresh(self) -> None:
        """Show what the writing process has done by now, in a store opened with ``read_only``.

        Every later call on the store sees that or something newer, and iterators that were begun
        before go on with what they began with. Costs as much as opening, or nearly nothing if there
        is nothing new. A store that is open for writing always is as it is now.
        """
        self._done(_abi.lib.kvs_refresh(self._pointer))

    def sync(self) -> None:
        """Make every write that has returned so far survive a loss of power."""
        self._done(_abi.lib.kvs_sync(self._pointer))

    def compact(self) -> None:
        """Give back the disk space of overwritten and removed keys, and return when that is done.

        Reads and writes go on meanwhile. Not needed: it also happens in the background.
        """
        self._done(_abi.lib.kvs_compact(self._pointer))

    def checkpoint(self, directory: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        """Make a copy of the store in ``directory``, which must not exist or be empty.

        Reads and writes go on meanwhile. The copy opens as it is and holds all writes up to one
        moment, all of them durable. If this fails nothing of it stays. On the same file system it
        takes hardly any space at first.

        Raises:
            StoreExistsError: something is in the directory.
            UnsupportedError: the engine makes no copies.
        """
        path = _utf8(os.fsdecode(directory))
        self._done(_abi.lib.kvs_checkpoint(self._pointer, path))

    def verify(self) -> VerifyReport:
        """Read every record, and return what is damaged. Damage is no error.

        Changes nothing, and reads and writes go on meanwhile.
        """
        return report_of(self._json(_abi.lib.kvs_verify_json))

    def stats(self) -> Stats:
        """Return figures about the store."""
        return stats_of(self._json(_abi.lib.kvs_stats_json))

    def _json(self, ask: Callable[[int, Any], int]) -> bytes:
        lent = c_void_p()
        self._done(ask(self._pointer, byref(lent)))
        return _taken(lent) or b""

    def serve(
        self,
        address: str = "127.0.0.1:0",
        *,
        pool: Literal["shared-queue", "rayon", "naive"] | None = None,
        threads: int | None = None,
        connections_max: int | None = None,
        request_bytes_max: int | None = None,
        unfinished_bytes_max: int | None = None,
        request_timeout: float | None = None,
        stall_timeout: float | None = None,
        listen_fd: int | None = None,
    ) -> Server:
        """Start a server on this store, inside this process, and return it listening.

        Keep the result: a server that is collected stops. Stop it before the store is closed.

        Args:
            address: where to listen. Port 0 takes a free one; see :attr:`Server.address`.
            pool: how its threads are organised; the default is ``"shared-queue"``.
            threads: how many it has; by default one per processor.
            connections_max: most connections at a time; 1024 by default.
            request_bytes_max: longest request, in bytes; 64 MiB by default.
            unfinished_bytes_max: bytes of requests that have arrived in part, of all clients
                together, without the first 64 KiB of each; 256 MiB by default.
            request_timeout: seconds that a request may take from its first byte to its last; 30
                by default.
            stall_timeout: seconds that a client may leave its replies unread; 60 by default.
            listen_fd: a descriptor that listens already, as a service manager passes it or
                ``socket.fileno()`` gives it, to be used instead of ``address``. It is duplicated
                and stays yours.

        Raises:
            NetworkError: the address is in use, or not one of this machine.
            ValueError: an argument cannot work.
        """
        options = {
            _abi.OPT_SERVER_POOL: pool,
            _abi.OPT_SERVER_THREADS: threads,
            _abi.OPT_SERVER_CONNECTIONS_MAX: connections_max,
            _abi.OPT_SERVER_REQUEST_BYTES_MAX: request_bytes_max,
            _abi.OPT_SERVER_UNFINISHED_BYTES_MAX: unfinished_bytes_max,
            _abi.OPT_SERVER_REQUEST_TIMEOUT_MS: (
                None
                if request_timeout is None
                else _options.milliseconds("request_timeout", request_timeout)
            ),
            _abi.OPT_SERVER_STALL_TIMEOUT_MS: (
                None
                if stall_timeout is None
                else _options.milliseconds("stall_timeout", stall_timeout)
            ),
            _abi.OPT_SERVER_LISTEN_FD: listen_fd,
        }
        return Server(self, self._handle, address, options)

    def close(self) -> None:
        """Wait for calls under way, make everything durable, and let go of the directory.

        Every later call raises :class:`ClosedError`, except ``close`` itself. If the last writes
        could not be made durable that is raised, and the store is closed all the same. In the child
        of a fork this only says that the child does not want the store.
        """
        if self._handle.inherited:
            self._handle.ended = True
            return
        status = _abi.lib.kvs_close(self._pointer)
        self._handle.ended = True
        self._done(status)

    _end = close

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<kvs.Store {self.path!r}, {state}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError(
            "a store cannot be pickled or copied; pass its path to the process that shall open it"
        )


class _Items(ItemsView[bytes, bytes]):
    """As ItemsView, without a lookup for each key, between which it could be removed."""

    _mapping: Store

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._mapping.scan()


class _Values(ValuesView[bytes]):
    """As ValuesView, without a lookup for each key, between which it could be removed."""

    _mapping: Store

    def __iter__(self) -> Iterator[bytes]:
        return self._mapping._scan_all(values_of)

    def __contains__(self, value: object) -> bool:
        return any(value == found for found in self)
