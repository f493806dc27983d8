"""Pointers of the library, and when they are freed.

Closing a store and freeing its pointer are two steps. ``close()`` may be called at any time from
any thread, so it must not free: another thread may be inside a call. The pointer is freed when the
Python object that owns it is collected, because then no call can be under way (a call holds a
reference to the object it is made on). When the interpreter exits objects are closed but not
freed: daemon threads may still be inside a call.
"""

from __future__ import annotations

import atexit
import os
import sys
import warnings
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, TypeVar

from . import _abi, _log
from ._errors import Error, failure


class Handle:
    """One pointer of the library and what is known about it."""

    __slots__ = ("_free", "ended", "kind", "path", "pid", "pointer")

    def __init__(self, kind: str, path: str, pointer: int, free: Callable[[int], object]) -> None:
        self.kind = kind
        # Of a store; of a server, the address.
        self.path = path
        self.pointer = pointer
        self.pid = os.getpid()
        # Whether what the pointer stands for was ended on purpose, by `close()` or `stop()`.
        self.ended = False
        self._free = free

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the one that the pointer belongs to."""
        return os.getpid() != self.pid

    def failure(self, status: int) -> Error:
        """Return the exception for ``status``, which a call on this pointer has just returned."""
        if status != _abi.ERR_FORKED:
            return failure(status, self.path)
        return failure(
            status,
            self.path,
            f"the {self.kind} {self.path!r} belongs to process {self.pid} and cannot be used in "
            f"process {os.getpid()}, which was forked from it; fork before opening a store, or use "
            'the "spawn" start method of multiprocessing',
        )

    def release(self) -> None:
        """Free the pointer. Nobody may use it afterwards."""
        _live.pop(self, None)
        self._free(self.pointer)
        if not self.ended and not self.inherited:
            warnings.warn(f"unclosed {self.kind} {self.path!r}", ResourceWarning, stacklevel=2)


Entered = TypeVar("Entered", bound="Ending")


class Ending:
    """A context manager that ends what it stands for at the end of the block, however it goes."""

    __slots__ = ()

    def _end(self) -> None:
        raise NotImplementedError

    def __enter__(self: Entered) -> Entered:  # noqa: PYI019  needs a newer Python
        """Return the object itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it: close the store, stop the server, end the scan."""
        self._end()


class Held(Ending):
    """An object with a handle, whose calls say by their status how they went."""

    __slots__ = ("_handle",)

    _handle: Handle

    def _done(self, status: int) -> bool:
        """Return whether ``status`` is OK, and not another answer; raise if it is a failure."""
        if status < 0:
            raise self._handle.failure(status)
        return status == _abi.OK


class Owner(Protocol):
    """An object with a handle, which knows how to end what it stands for."""

    def _end(self) -> None: ...


# What is to be ended when the interpreter exits, oldest first.
_live: dict[Handle, weakref.ref[Owner]] = {}


def own(owner: Owner, handle: Handle) -> None:
    """Free ``handle`` when ``owner`` is collected, and end it if the interpreter exits first."""
    _live[handle] = weakref.ref(owner)
    weakref.finalize(owner, handle.release).atexit = False


@atexit.register
def _end_all() -> None:
    # Newest first, so that a server stops before its store closes. One failure is shown and does
    # not keep the others from being ended.
    for reference in reversed(list(_live.values())):
        owner = reference()
        if owner is not None:
            try:
                owner._end()
            except Exception:  # noqa: BLE001  shown, as weakref.finalize does
                sys.excepthook(*sys.exc_info())
    # Last, so that it hears what closing them has to say.
    _log.stop()
