"""What the library has to say of itself, passed on to ``logging.getLogger("kvs")``.

The library speaks of failures in the background, of tails that a crash left, of a full disk. Its
lines arrive on a thread of their own, so a handler may do whatever it likes.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from . import _abi

logger: Final = logging.getLogger("kvs")
# Silence is the default: without a handler Python would print warnings to the standard error.
logger.addHandler(logging.NullHandler())

_LEVELS: Final = {
    _abi.LOG_ERROR: logging.ERROR,
    _abi.LOG_WARN: logging.WARNING,
    _abi.LOG_INFO: logging.INFO,
}


def _pass_on(_userdata: int | None, level: int, text: int) -> None:
    logger.log(_LEVELS.get(level, logging.DEBUG), "%s", _abi.text(text))


# For as long as the library may call it, which is until `stop`.
_callback: Final = _abi.LOGGER_FN(_pass_on)


_starting = threading.Lock()
_started = False


def start() -> None:
    """Begin to pass lines on; once, when the first store is opened."""
    global _started  # noqa: PLW0603  one for the process, as the library has it
    with _starting:
        if not _started:
            # A program in Rust that has Python inside may have a logger already, which stays.
            _abi.lib.kvs_set_logger(_abi.LOG_INFO, _callback, None)
            _started = True


def stop() -> None:
    """Pass on what is left and no more: the library must not call an interpreter that is gone."""
    _abi.lib.kvs_set_logger(_abi.LOG_OFF, _abi.LOGGER_FN(), None)
