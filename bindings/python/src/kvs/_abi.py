"""The C functions of libkvs, declared once.

``FUNCTIONS`` is the only place where a C function is described to ctypes; ``tests/test_abi.py``
compares it, name by name and width by width, with ``kvs.h``. Nothing else in the package touches
ctypes prototypes. Calls made through ``lib`` release the GIL while they run.

Keys and values go in as ``c_char_p``, which takes ``bytes`` as they lie in memory, zero bytes
included, and refuses ``str``. Data never comes out as ``c_char_p``: that type stops at the first
zero byte and forgets the pointer.
"""

from __future__ import annotations

import os
import sys
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    c_char_p,
    c_int32,
    c_size_t,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any, Final

ABI_VERSION: Final = 0

OK: Final = 0
NOT_FOUND: Final = 1
END: Final = 2
MISMATCH: Final = 3
TOO_SMALL: Final = 4
TIMEOUT: Final = 5

ERR_NULL: Final = -1
ERR_INVALID: Final = -2
ERR_UNSUPPORTED: Final = -3
ERR_CLOSED: Final = -4
ERR_POISONED: Final = -5
ERR_PANIC: Final = -6
ERR_FORKED: Final = -7
ERR_IO: Final = -8
ERR_NO_SPACE: Final = -9
ERR_CORRUPT: Final = -10
ERR_KEY_TOO_LONG: Final = -11
ERR_VALUE_TOO_LONG: Final = -12
ERR_BATCH_TOO_LONG: Final = -13
ERR_LOCKED: Final = -14
ERR_NOT_A_DIRECTORY: Final = -15
ERR_NO_STORE: Final = -16
ERR_STORE_EXISTS: Final = -17
ERR_FORMAT: Final = -18
ERR_WRONG_ENGINE: Final = -19
ERR_READ_ONLY: Final = -20
ERR_NOT_UTF8: Final = -21
ERR_NET: Final = -22
ERR_THREAD: Final = -23
ERR_PROTOCOL: Final = -24
ERR_ENGINE: Final = -25
ERR_PERMISSION: Final = -26

OPT_ENGINE: Final = 1
OPT_DURABILITY: Final = 2
OPT_SYNC_INTERVAL_MS: Final = 3
OPT_READ_MODE: Final = 4
OPT_CREATE: Final = 5
OPT_EXCLUSIVE: Final = 6
OPT_LOCK_TIMEOUT_MS: Final = 7
OPT_SEGMENT_BYTES_MIN: Final = 8
OPT_SEGMENT_BYTES_MAX: Final = 9
OPT_AUTO_COMPACTION: Final = 10
OPT_COMPACTION_BYTES_PER_SECOND_MAX: Final = 11
OPT_ORDERED: Final = 12
OPT_READ_ONLY: Final = 13
OPT_COMPACTION_DEAD_PERCENT_MIN: Final = 14
OPT_WRITE_MODE: Final = 15
OPT_SERVER_POOL: Final = 1000
OPT_SERVER_THREADS: Final = 1001
OPT_SERVER_CONNECTIONS_MAX: Final = 1002
OPT_SERVER_LISTEN_FD: Final = 1003
OPT_SERVER_REQUEST_BYTES_MAX: Final = 1004
OPT_SERVER_OUTPUT_BYTES_MAX: Final = 1005
OPT_SERVER_FIRST_BYTE_TIMEOUT_MS: Final = 1006
OPT_SERVER_REQUEST_TIMEOUT_MS: Final = 1007
OPT_SERVER_STALL_TIMEOUT_MS: Final = 1008
OPT_SERVER_LINGER_TIMEOUT_MS: Final = 1009
OPT_SERVER_KEEPALIVE_TIME_MS: Final = 1010
OPT_SERVER_UNFINISHED_BYTES_MAX: Final = 1011

DURABILITY_OS: Final = 0
DURABILITY_INTERVAL: Final = 1
DURABILITY_SYNC: Final = 2

READ_MAPPED: Final = 0
READ_POSITIONED: Final = 1

WRITE_MODE_TAIL: Final = 0
WRITE_MODE_DIRECT: Final = 1

WRITE_SYNC: Final = 1

EXPIRY_NEVER: Final = (1 << 64) - 1

SCAN_REVERSE: Final = 1
SCAN_KEYS_ONLY: Final = 2

LOG_OFF: Final = 0
LOG_ERROR: Final = 1
LOG_WARN: Final = 2
LOG_INFO: Final = 3
LOG_DEBUG: Final = 4
LOG_TRACE: Final = 5

KEY_LEN_MAX: Final = 65_535
VALUE_LEN_MAX: Final = 1 << 30

# What the parameters are, in the header's words.
_status = c_int32
_handle = c_void_p
_in = c_char_p
_text = c_void_p  # const char * that the library owns
_handle_out = POINTER(_handle)
_size_out = POINTER(c_size_t)

# kvs_log_fn: userdata, level, text.
LOGGER_FN: Final = CFUNCTYPE(None, c_void_p, c_int32, _text)

FUNCTIONS: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    # The name, the result, the arguments.
    "kvs_version": (_text, ()),
    "kvs_version_number": (c_uint32, ()),
    "kvs_check_abi": (_status, (c_uint32,)),
    "kvs_status_name": (_text, (_status,)),
    "kvs_status_text": (_text, (_status,)),
    "kvs_last_error": (_text, ()),
    "kvs_last_os_error": (c_int32, ()),
    "kvs_set_logger": (_status, (c_int32, LOGGER_FN, c_void_p)),
    "kvs_options_new": (_handle, ()),
    "kvs_options_free": (None, (_handle,)),
    "kvs_options_set_u64": (_status, (_handle, c_int32, c_uint64)),
    "kvs_options_set_str": (_status, (_handle, c_int32, _in, c_size_t)),
    "kvs_options_get_u64": (_status, (_handle, c_int32, POINTER(c_uint64))),
    "kvs_open": (_status, (_in, _handle, POINTER(_handle))),
    "kvs_refresh": (_status, (_handle,)),
    "kvs_close": (_status, (_handle,)),
    "kvs_store_free": (None, (_handle,)),
    "kvs_get": (_status, (_handle, _in, c_size_t, POINTER(_handle))),
    "kvs_get_into": (
        _status,
        (_handle, _in, c_size_t, c_void_p, c_size_t, POINTER(c_size_t)),
    ),
    "kvs_contains": (_status, (_handle, _in, c_size_t)),
    "kvs_set": (_status, (_handle, _in, c_size_t, _in, c_size_t)),
    "kvs_remove": (_status, (_handle, _in, c_size_t)),
    "kvs_swap": (_status, (_handle, _in, c_size_t, _in, c_size_t, _handle_out)),
    "kvs_compare_and_swap": (
        _status,
        (_handle, _in, c_size_t, _in, c_size_t, _in, c_size_t, _handle_out),
    ),
    "kvs_get_many": (_status, (_handle, _in, c_size_t, c_size_t, _handle_out)),
    "kvs_set_with_expiry": (_status, (_handle, _in, c_size_t, _in, c_size_t, c_uint64)),
    "kvs_get_expiry": (_status, (_handle, _in, c_size_t, POINTER(c_uint64))),
    "kvs_set_expiry": (_status, (_handle, _in, c_size_t, c_uint64, POINTER(c_uint64))),
    "kvs_buf_data": (c_void_p, (_handle,)),
    "kvs_buf_len": (c_size_t, (_handle,)),
    "kvs_buf_free": (None, (_handle,)),
    "kvs_batch_new": (_handle, ()),
    "kvs_batch_free": (None, (_handle,)),
    "kvs_batch_set": (_status, (_handle, _in, c_size_t, _in, c_size_t)),
    "kvs_batch_set_with_expiry": (_status, (_handle, _in, c_size_t, _in, c_size_t, c_uint64)),
    "kvs_batch_remove": (_status, (_handle, _in, c_size_t)),
    "kvs_batch_count": (c_size_t, (_handle,)),
    "kvs_batch_clear": (None, (_handle,)),
    "kvs_write": (_status, (_handle, _handle, c_uint32)),
    "kvs_scan": (
        _status,
        (_handle, _in, c_size_t, _in, c_size_t, c_uint32, _handle_out),
    ),
    "kvs_scan_prefix": (_status, (_handle, _in, c_size_t, c_uint32, _handle_out)),
    "kvs_scan_unordered": (_status, (_handle, c_uint32, _handle_out)),
    "kvs_iter_next": (_status, (_handle, _handle_out, _size_out, _handle_out, _size_out)),
    "kvs_iter_next_many": (
        _status,
        (_handle, c_void_p, c_size_t, _size_out, _size_out, _size_out),
    ),
    "kvs_iter_free": (None, (_handle,)),
    "kvs_len": (_status, (_handle, POINTER(c_uint64))),
    "kvs_clear": (_status, (_handle,)),
    "kvs_sync": (_status, (_handle,)),
    "kvs_compact": (_status, (_handle,)),
    "kvs_checkpoint": (_status, (_handle, _in)),
    "kvs_verify": (_status, (_handle, POINTER(c_uint64), POINTER(c_uint64))),
    "kvs_verify_json": (_status, (_handle, _handle_out)),
    "kvs_get_stats": (_status, (_handle, c_void_p, c_size_t)),
    "kvs_stats_json": (_status, (_handle, _handle_out)),
    "kvs_server_start": (_status, (_handle, _in, _handle, POINTER(_handle))),
    "kvs_server_address": (_status, (_handle, c_void_p, c_size_t, POINTER(c_size_t))),
    "kvs_server_port": (_status, (_handle, POINTER(c_uint16))),
    "kvs_server_wait": (_status, (_handle, c_uint32)),
    "kvs_server_stop": (_status, (_handle, c_uint32)),
    "kvs_server_free": (None, (_handle,)),
}

if sys.platform == "win32":
    LIBRARY_NAME = "kvs.dll"
elif sys.platform == "darwin":
    LIBRARY_NAME = "libkvs.dylib"
else:
    LIBRARY_NAME = "libkvs.so"

_PACKAGE = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """Return the root of the source tree that this file is used from, if it is."""
    for root in _PACKAGE.parents:
        if root / "bindings/python/src/kvs" == _PACKAGE and (root / "Cargo.toml").is_file():
            return root
    return None


def find_library() -> Path:
    """Return the absolute path of the library to load.

    The first of: the file that ``KVS_LIBRARY`` names, the file beside this module (an installed
    package has it there), the latest build in a source tree.
    """
    override = os.environ.get("KVS_LIBRARY")
    if override:
        path = Path(override).absolute()
        if not path.is_file():
            raise ImportError(f"KVS_LIBRARY names {path}, which is not a file", path=str(path))
        return path
    shipped = _PACKAGE / LIBRARY_NAME
    if shipped.is_file():
        return shipped
    root = checkout()
    builds = (
        [root / "target" / kind / LIBRARY_NAME for kind in ("release", "debug")] if root else []
    )
    built = [path for path in builds if path.is_file()]
    if built:
        return max(built, key=lambda path: path.stat().st_mtime)
    looked = ", ".join(str(path) for path in (shipped, *builds))
    raise ImportError(
        f"there is no libkvs in {looked}; build it with `cargo build --release`, "
        "or set KVS_LIBRARY to its path"
    )


def include_directory() -> Path:
    """Return the directory that holds ``kvs.h``: in the package, else in the source tree."""
    root = checkout()
    return root / "include" if root else _PACKAGE / "include"


def load(path: Path, abi_version: int = ABI_VERSION) -> CDLL:
    """Load the library at ``path`` and declare its functions.

    Raises ImportError if it cannot be loaded, is no libkvs, or has another ABI.
    """
    try:
        library = CDLL(str(path))
    except OSError as error:
        raise ImportError(f"cannot load {path}: {error}", path=str(path)) from error

    def declare(name: str) -> None:
        try:
            function = getattr(library, name)
        except AttributeError:
            raise ImportError(
                f"{path} has no {name}: it is no libkvs, or not of the version "
                "that this package is for",
                path=str(path),
            ) from None
        function.restype, function.argtypes = FUNCTIONS[name]

    # An ABI that does not fit explains a missing function, so it is asked first.
    for name in ("kvs_check_abi", "kvs_last_error", "kvs_version"):
        declare(name)
    if library.kvs_check_abi(abi_version) != OK:
        raise ImportError(
            f"{path} is libkvs {text(library.kvs_version())} and does not fit this package, which "
            f"speaks ABI {abi_version}: {text(library.kvs_last_error())}",
            path=str(path),
        )
    for name in FUNCTIONS:
        declare(name)
    return library


def text(pointer: int) -> str:
    """Return the text of the library at ``pointer``."""
    return (c_char_p(pointer).value or b"").decode("utf-8", "replace")


library_path: Final = find_library()
lib: Final = load(library_path)
