"""Options: Python values in, a ``kvs_options`` of the library out."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ctypes import c_void_p
from typing import Union

from . import _abi
from ._errors import failure

# By option number. None leaves the library's default.
Options = Mapping[int, Union[int, str, None]]

_U64_MAX = (1 << 64) - 1


@contextmanager
def as_handle(options: Options) -> Iterator[c_void_p]:
    """Lend a ``kvs_options`` that holds ``options``."""
    handle = c_void_p(_abi.lib.kvs_options_new())
    try:
        for number, value in options.items():
            if value is None:
                continue
            if isinstance(value, str):
                text = value.encode("utf-8", "surrogateescape")
                status = _abi.lib.kvs_options_set_str(handle, number, text, len(text))
            elif 0 <= value <= _U64_MAX:
                status = _abi.lib.kvs_options_set_u64(handle, number, value)
            else:
                # ctypes would cut it to 64 bits without a word.
                raise ValueError(f"an option must be between 0 and {_U64_MAX}, not {value}")
            if status != _abi.OK:
                raise failure(status, None)
        yield handle
    finally:
        _abi.lib.kvs_options_free(handle)


def choice(name: str, value: str | None, choices: Mapping[str, int]) -> int | None:
    """Return the number that ``value`` stands for; None for None."""
    if value is None:
        return None
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
    return choices[value]


def milliseconds(name: str, seconds: float) -> int:
    """Return ``seconds`` as whole milliseconds, rounded up, so that a little is not nothing."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}")
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"{name} must be 0 or more seconds, not {seconds}")
    # What C takes at most, 49 days.
    return min(math.ceil(min(seconds, sys.maxsize) * 1000), (1 << 32) - 1)
