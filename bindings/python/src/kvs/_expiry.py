"""When a key expires: what a caller says in, milliseconds since the Unix epoch out."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import Union

from . import _abi

Seconds = Union[float, timedelta]


def expiry_of(expiry_ms: int | None, ttl: Seconds | None) -> int:
    """Return the time for C: ``expiry_ms`` itself, ``ttl`` from now, or never for neither."""
    if ttl is None:
        return _abi.EXPIRY_NEVER if expiry_ms is None else _time(expiry_ms)
    if expiry_ms is not None:
        raise ValueError("a key expires at expiry_ms or after ttl, not both")
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"ttl must be seconds or a timedelta, not {type(ttl).__name__}")
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"ttl must be 0 or more seconds, not {seconds}")
    if seconds == math.inf:
        return _abi.EXPIRY_NEVER
    # Rounded up: the key is there at least so long.
    return min(time.time_ns() // 1_000_000 + math.ceil(seconds * 1000), _abi.EXPIRY_NEVER)


def _time(expiry_ms: int) -> int:
    # A float would be seconds as `time.time()` gives them, and long ago.
    if isinstance(expiry_ms, bool) or not isinstance(expiry_ms, int):
        raise TypeError(f"expiry_ms must be an int, not {type(expiry_ms).__name__}")
    # ctypes would cut it to 64 bits without a word.
    if not 0 <= expiry_ms < _abi.EXPIRY_NEVER:
        raise ValueError("expiry_ms must be milliseconds since 1970, from 0 to 2**64 - 2")
    return expiry_ms


def told(expiry_ms: int) -> int | None:
    """Return the time that C tells; None for never."""
    return None if expiry_ms == _abi.EXPIRY_NEVER else expiry_ms
