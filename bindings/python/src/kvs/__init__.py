"""An embeddable key-value store: a dictionary of ``bytes`` in a directory.

>>> import kvs
>>> with kvs.open("cities") as store:
...     store[b"no"] = b"Oslo"
...     store[b"no"]
b'Oslo'

:func:`open` opens a store, :class:`Store` is one, :meth:`Store.serve` lets other processes use it
while it is open, and :class:`Error` is at the root of what can go wrong.
"""

from __future__ import annotations

from . import _abi
from ._batch import Batch
from ._errors import (
    ClosedError,
    CorruptionError,
    Error,
    ForkedError,
    FormatError,
    InvalidArgumentError,
    LockedError,
    NetworkError,
    NoSpaceError,
    PanicError,
    PoisonedError,
    ReadOnlyError,
    StoreExistsError,
    StoreIOError,
    StoreNotADirectoryError,
    StoreNotFoundError,
    StorePermissionError,
    TooLargeError,
    UnsupportedError,
    WrongEngineError,
)
from ._reports import Damage, Stats, VerifyReport
from ._scan import Scan
from ._server import Server
from ._store import Store, open  # noqa: A004  as in gzip, shelve and dbm

__all__ = [
    "KEY_LEN_MAX",
    "VALUE_LEN_MAX",
    "Batch",
    "ClosedError",
    "CorruptionError",
    "Damage",
    "Error",
    "ForkedError",
    "FormatError",
    "InvalidArgumentError",
    "LockedError",
    "NetworkError",
    "NoSpaceError",
    "PanicError",
    "PoisonedError",
    "ReadOnlyError",
    "Scan",
    "Server",
    "Stats",
    "Store",
    "StoreExistsError",
    "StoreIOError",
    "StoreNotADirectoryError",
    "StoreNotFoundError",
    "StorePermissionError",
    "TooLargeError",
    "UnsupportedError",
    "VerifyReport",
    "WrongEngineError",
    "__version__",
    "get_include",
    "open",
]

__version__: str = _abi.text(_abi.lib.kvs_version())

#: Longest key, in bytes.
KEY_LEN_MAX = _abi.KEY_LEN_MAX
#: Longest value, in bytes.
VALUE_LEN_MAX = _abi.VALUE_LEN_MAX


def get_include() -> str:
    """Return the directory that holds ``kvs.h``, for extensions that call the C library."""
    return str(_abi.include_directory())
