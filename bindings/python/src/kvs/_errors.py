"""One tree of exceptions for what the library can say no to.

Every class is an :class:`Error`, and also the builtin exception that a Python programmer would
expect, so ``except FileNotFoundError`` works for a store as it does for a file.
"""

from __future__ import annotations

import errno
from typing import Final

from . import _abi


class Error(Exception):
    """Something that the library refused or could not do.

    Attributes:
        code: the number of the status, such as ``-14``. It never changes its meaning.
        name: its name, such as ``"KVS_ERR_LOCKED"``.
        message: what happened, in one line with paths and offsets; never with keys or values.
        path: the path of the store, or the address of the server, if there is one.
        os_errno: the error number of the operating system behind it, if there is one.
    """

    # What ``errno`` says where the library refuses by itself, without asking the system.
    _errno_default: int | None = None

    def __init__(
        self, code: int, name: str, message: str, path: str | None, os_errno: int | None
    ) -> None:
        if isinstance(self, OSError):
            number = os_errno if os_errno is not None else self._errno_default
            super().__init__(number, message, path)
        else:
            super().__init__(message)
        self.code = code
        self.name = name
        self.message = message
        self.path = path
        self.os_errno = os_errno

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[Error], tuple[object, ...]]:
        return type(self), (self.code, self.name, self.message, self.path, self.os_errno)


class InvalidArgumentError(Error, ValueError):
    """An argument or an option has a value that cannot work."""


class UnsupportedError(Error, ValueError):
    """This build of the library has no such option, engine or operation."""


class ClosedError(Error, ValueError):
    """The store has been closed."""


class TooLargeError(Error, ValueError):
    """A key, a value (:data:`KEY_LEN_MAX`, :data:`VALUE_LEN_MAX`) or a batch is over its limit."""


class LockedError(Error):
    """The store is open already, here or in another process; the message names the process."""


class CorruptionError(Error):
    """Bytes on disk contradict themselves; the message says which."""


class FormatError(Error):
    """The store was written in a format that this version does not read."""


class WrongEngineError(Error):
    """The store was written by another engine than the one asked for."""


class PoisonedError(Error):
    """An earlier failure left unknown which writes are on disk. Reads go on; reopen the store."""


class ForkedError(Error, RuntimeError):
    """The store or server belongs to the process that this one was forked from."""


class PanicError(Error, RuntimeError):
    """A bug in the library was caught. The store takes no more writes; please report it."""


class StoreIOError(Error, OSError):
    """The operating system refused something: a read, a write, a thread."""

    _errno_default = errno.EIO


class NoSpaceError(StoreIOError):
    """The disk or a quota is full. Nothing acknowledged is lost, and reads go on."""

    _errno_default = errno.ENOSPC


class StoreNotFoundError(StoreIOError, FileNotFoundError):
    """There is no store in the directory, and ``create=False`` asked for an existing one."""

    _errno_default = errno.ENOENT


class StoreExistsError(StoreIOError, FileExistsError):
    """There is a store in the directory already, and ``exclusive=True`` asked for a new one."""

    _errno_default = errno.EEXIST


class StoreNotADirectoryError(StoreIOError, NotADirectoryError):
    """The path exists and is not a directory; a store is one."""

    _errno_default = errno.ENOTDIR


class StorePermissionError(StoreIOError, PermissionError):
    """The operating system denies access to a file or directory of the store."""

    _errno_default = errno.EACCES


class ReadOnlyError(StoreIOError, PermissionError):
    """The store is open for reading only."""

    _errno_default = errno.EROFS


class NetworkError(Error, OSError):
    """The operating system refused a network operation, such as to listen on an address."""

    _errno_default = errno.EADDRNOTAVAIL


# Every status below zero, and what it is here. Statuses of a newer library are plain `Error`.
CLASSES: Final[dict[int, type[Error]]] = {
    _abi.ERR_NULL: InvalidArgumentError,
    _abi.ERR_INVALID: InvalidArgumentError,
    _abi.ERR_UNSUPPORTED: UnsupportedError,
    _abi.ERR_CLOSED: ClosedError,
    _abi.ERR_POISONED: PoisonedError,
    _abi.ERR_PANIC: PanicError,
    _abi.ERR_FORKED: ForkedError,
    _abi.ERR_IO: StoreIOError,
    _abi.ERR_NO_SPACE: NoSpaceError,
    _abi.ERR_CORRUPT: CorruptionError,
    _abi.ERR_KEY_TOO_LONG: TooLargeError,
    _abi.ERR_VALUE_TOO_LONG: TooLargeError,
    _abi.ERR_BATCH_TOO_LONG: TooLargeError,
    _abi.ERR_LOCKED: LockedError,
    _abi.ERR_NOT_A_DIRECTORY: StoreNotADirectoryError,
    _abi.ERR_NO_STORE: StoreNotFoundError,
    _abi.ERR_STORE_EXISTS: StoreExistsError,
    _abi.ERR_FORMAT: FormatError,
    _abi.ERR_WRONG_ENGINE: WrongEngineError,
    _abi.ERR_READ_ONLY: ReadOnlyError,
    _abi.ERR_NOT_UTF8: InvalidArgumentError,
    _abi.ERR_NET: NetworkError,
    _abi.ERR_THREAD: StoreIOError,
    _abi.ERR_PROTOCOL: Error,
    _abi.ERR_ENGINE: Error,
    _abi.ERR_PERMISSION: StorePermissionError,
}


def failure(status: int, path: str | None, message: str | None = None) -> Error:
    """Return the exception for ``status``, which a call on this thread has just returned.

    The message is the library's own, unless there is a better one.
    """
    if message is None:
        message = _abi.text(_abi.lib.kvs_last_error())
    os_errno: int = _abi.lib.kvs_last_os_error()
    name = _abi.text(_abi.lib.kvs_status_name(status))
    return CLASSES.get(status, Error)(status, name, message, path, os_errno or None)
