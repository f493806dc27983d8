"""The store: a directory of keys and values, as a Python object."""

from __future__ import annotations

import os
import threading
import time
from ctypes import byref, c_size_t, c_uint64, c_void_p, create_string_buffer, string_at
from types import TracebackType
from typing import Any, Final, Literal, NoReturn, TypeVar, Union, overload

from . import _abi, _options
from ._errors import LockedError, failure
from ._handle import Handle, own
from ._server import Server

Bytes = Union[bytes, bytearray, memoryview]
Default = TypeVar("Default")
Sync = Union[Literal["os", "always"], float]

_READ_MODES: Final = {"mapped": _abi.READ_MAPPED, "positioned": _abi.READ_POSITIONED}

# Longest wait inside one C call, in seconds: signals such as Ctrl-C are handled in between.
_WAIT_SECONDS: Final = 0.2

_get = _abi.lib.kvs_get
_get_into = _abi.lib.kvs_get_into
_set = _abi.lib.kvs_set
_OK: Final = _abi.OK


def open(  # noqa: A001  as in gzip, shelve and dbm
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    create: bool = True,
    exclusive: bool = False,
    sync: Sync | None = None,
    engine: str | None = None,
    read_mode: Literal["mapped", "positioned"] | None = None,
    lock_timeout: float = 0.0,
    segment_bytes_min: int | None = None,
    segment_bytes_max: int | None = None,
    auto_compaction: bool = True,
    compaction_bytes_per_second_max: int | None = None,
) -> Store:
    """Open the store in the directory ``path``.

    Only one process can have a directory open, and it can have it open once.

    Args:
        path: the directory. It is created with its parents if it is missing.
        create: whether to create a store where there is none.
        exclusive: whether to refuse a directory that holds a store already.
        sync: what a write that has returned survives. ``"os"``: the death of the process.
            A number of seconds: as ``"os"``, and a loss of power costs at most the writes of the
            last so many seconds. ``"always"``: a loss of power. The default is 0.5 seconds.
        engine: ``"kvs"`` or ``"sled"``; by default what the directory holds, else ``"kvs"``.
        read_mode: ``"mapped"`` is fastest; with ``"positioned"`` a failing disk is an error and
            not the signal SIGBUS.
        lock_timeout: seconds to wait for another opener to let go.
        segment_bytes_min: smallest size at which a segment file is sealed.
        segment_bytes_max: largest size of a segment file; a longer record has its own.
        auto_compaction: whether to give dead space back in the background.
        compaction_bytes_per_second_max: most bytes that background compaction copies per second.

    Raises:
        LockedError: it is open already.
        StoreNotADirectoryError: the path is something else.
        StoreNotFoundError, StoreExistsError: as ``create`` and ``exclusive`` ask.
        StorePermissionError, StoreIOError: the operating system refuses.
        CorruptionError, FormatError, WrongEngineError: it is not a store for this call.
        ValueError: an option has a value that cannot work.
    """
    name = os.fsdecode(path)
    if "\0" in name:
        raise ValueError("embedded null character in path")
    options: dict[int, int | str | None] = {
        _abi.OPT_ENGINE: engine,
        _abi.OPT_READ_MODE: _options.choice("read_mode", read_mode, _READ_MODES),
        _abi.OPT_CREATE: int(create),
        _abi.OPT_EXCLUSIVE: int(exclusive),
        _abi.OPT_SEGMENT_BYTES_MIN: segment_bytes_min,
        _abi.OPT_SEGMENT_BYTES_MAX: segment_bytes_max,
        _abi.OPT_AUTO_COMPACTION: int(auto_compaction),
        _abi.OPT_COMPACTION_BYTES_PER_SECOND_MAX: compaction_bytes_per_second_max,
        **_durability(sync),
    }
    deadline = time.monotonic() + _options.milliseconds("lock_timeout", lock_timeout) / 1000
    while True:
        left = max(0.0, deadline - time.monotonic())
        wait = min(left, _WAIT_SECONDS)
        options[_abi.OPT_LOCK_TIMEOUT_MS] = _options.milliseconds("lock_timeout", wait)
        try:
            return Store(_open(name, options), name)
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
    with _options.as_handle(options) as handle:
        # C speaks UTF-8 and says so when a file name that Python escaped is not.
        utf8 = path.encode("utf-8", "surrogateescape")
        status = _abi.lib.kvs_open(utf8, handle, byref(pointer))
    if status != _OK:
        raise failure(status, path)
    return pointer.value or 0


def _as_bytes(what: str, data: Bytes) -> bytes:
    """Return ``data`` as ``bytes``; refuse what only looks like it."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        # A copy: another thread could resize or change the original during the call.
        return bytes(data)
    if isinstance(data, str):
        raise TypeError(f"{what} must be bytes-like, not str; use .encode()")
    raise TypeError(f"{what} must be bytes, bytearray or memoryview, not {type(data).__name__}")


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


class _PerThread(threading.local):
    # Taken out while in use: a signal handler or a finalizer can run between the call that fills
    # the scratch memory and the copy out of it, and may read from a store too.
    scratch: _Scratch | None = None


_per_thread = _PerThread()


class Store:
    """A key-value store in one directory; :func:`kvs.open` makes it.

    It is used like a dictionary of ``bytes``. Keys and values are ``bytes``, ``bytearray`` or
    ``memoryview``, and come back as ``bytes``; a ``str`` is a :class:`TypeError`. An absent key is
    a :class:`KeyError` where a dictionary raises one. It cannot be iterated over.

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

    __slots__ = ("__weakref__", "_handle", "_pointer")

    # Without these, Python would try store[0], store[1], ... and complain about the keys.
    __iter__ = None
    __reversed__ = None

    def __init__(self, pointer: int, path: str) -> None:
        """Take over ``pointer``; use :func:`kvs.open`."""
        self._pointer = pointer
        self._handle = Handle("store", path, pointer, _abi.lib.kvs_store_free)
        own(self, self._handle)

    @property
    def path(self) -> str:
        """The directory, as it was given to :func:`kvs.open`."""
        return self._handle.path

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
            key = _as_bytes("a key", key)
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
        try:
            status: int = _get(self._pointer, key, len(key), byref(lent))
            if status != _OK:
                return status, None
            length = _abi.lib.kvs_buf_len(lent)
            return status, string_at(_abi.lib.kvs_buf_data(lent), length)
        finally:
            _abi.lib.kvs_buf_free(lent)

    def __setitem__(self, key: Bytes, value: Bytes) -> None:
        """Set ``key`` to ``value``, whether or not it was there."""
        if type(key) is not bytes:
            key = _as_bytes("a key", key)
        if type(value) is not bytes:
            value = _as_bytes("a value", value)
        status = _set(self._pointer, key, len(key), value, len(value))
        if status < 0:
            raise self._handle.failure(status)

    def __delitem__(self, key: Bytes) -> None:
        """Remove ``key``; KeyError if it is absent."""
        if not self.discard(key):
            raise KeyError(key)

    def discard(self, key: Bytes) -> bool:
        """Remove ``key`` if it is there, and return whether it was."""
        data = _as_bytes("a key", key)
        return self._done(_abi.lib.kvs_remove(self._pointer, data, len(data)))

    def __contains__(self, key: object) -> bool:
        """Return whether ``key`` is there; cheaper than reading its value."""
        data = _as_bytes("a key", key)  # type: ignore[arg-type]  # refuses what is not bytes-like
        return self._done(_abi.lib.kvs_contains(self._pointer, data, len(data)))

    def __len__(self) -> int:
        """Return the number of keys; costs the same however many there are."""
        count = c_uint64()
        self._done(_abi.lib.kvs_len(self._pointer, byref(count)))
        return count.value

    def __bool__(self) -> bool:
        """Return whether there is any key."""
        return len(self) > 0

    def sync(self) -> None:
        """Make every write that has returned so far survive a loss of power."""
        self._done(_abi.lib.kvs_sync(self._pointer))

    def compact(self) -> None:
        """Give back the disk space of overwritten and removed keys, and return when that is done.

        Reads and writes go on meanwhile. Not needed: it also happens in the background.
        """
        self._done(_abi.lib.kvs_compact(self._pointer))

    def serve(
        self,
        address: str = "127.0.0.1:0",
        *,
        pool: Literal["shared-queue", "rayon", "naive"] | None = None,
        threads: int | None = None,
        connections_max: int | None = None,
        listen_fd: int | None = None,
    ) -> Server:
        """Start a server on this store, inside this process, and return it listening.

        Keep the result: a server that is collected stops. Stop it before the store is closed.

        Args:
            address: where to listen. Port 0 takes a free one; see :attr:`Server.address`.
            pool: how its threads are organised; the default is ``"shared-queue"``.
            threads: how many it has; by default one per processor.
            connections_max: most connections at a time.
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

    def __enter__(self) -> Store:
        """Return the store itself, to be closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the store."""
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<kvs.Store {self.path!r}, {state}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError(
            "a store cannot be pickled or copied; pass its path to the process that shall open it"
        )

    def _done(self, status: int) -> bool:
        """Return whether ``status`` is OK, and not another answer; raise if it is a failure."""
        if status < 0:
            raise self._handle.failure(status)
        return status == _OK
