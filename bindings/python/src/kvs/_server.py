"""The server: a store's TCP server inside this process, as a Python object."""

from __future__ import annotations

import time
from ctypes import byref, c_size_t, c_uint16, c_void_p, create_string_buffer
from typing import TYPE_CHECKING, Final, NoReturn

from . import _abi, _options
from ._errors import failure
from ._handle import Handle, Held, own

if TYPE_CHECKING:
    from ._store import Store

# Longest wait inside one C call, in milliseconds: signals such as Ctrl-C are handled in between.
_WAIT_MS: Final = 200

# Room for any "IP:PORT".
_ADDRESS_LEN_MAX: Final = 128


class Server(Held):
    """A running server of a store; :meth:`Store.serve` makes it.

    It has threads of its own and answers while the program goes on using the store. Keep it for as
    long as it shall run: use it as a context manager, or call :meth:`stop`. The store stays open
    when it stops. May be used from any thread.
    """

    __slots__ = ("__weakref__", "_address", "_port", "_store")

    def __init__(
        self, store: Store, store_handle: Handle, address: str, options: _options.Options
    ) -> None:
        """Start a server; use :meth:`Store.serve`."""
        if "\0" in address:
            raise ValueError("embedded null character in address")
        pointer = c_void_p()
        with _options.as_handle(options) as handle:
            status = _abi.lib.kvs_server_start(
                store_handle.pointer, address.encode("utf-8"), handle, byref(pointer)
            )
        if status < 0:
            # A closed store and a fork concern the store, everything else the address.
            if status in {_abi.ERR_CLOSED, _abi.ERR_FORKED}:
                raise store_handle.failure(status)
            raise failure(status, address)
        self._handle = Handle("server", address, pointer.value or 0, _abi.lib.kvs_server_free)
        own(self, self._handle)
        # The server reads and writes the store for as long as it runs.
        self._store = store
        self._address = self._ask_address()
        self._handle.path = self._address
        self._port = self._ask_port()

    def _ask_address(self) -> str:
        text = create_string_buffer(_ADDRESS_LEN_MAX)
        length = c_size_t()
        self._done(
            _abi.lib.kvs_server_address(self._handle.pointer, text, len(text), byref(length))
        )
        return text.value.decode("ascii")

    def _ask_port(self) -> int:
        port = c_uint16()
        self._done(_abi.lib.kvs_server_port(self._handle.pointer, byref(port)))
        return port.value

    @property
    def address(self) -> str:
        """Where it listens, such as ``"127.0.0.1:4000"``, with the port that it really has."""
        return self._address

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    @property
    def store(self) -> Store:
        """The store that it serves."""
        return self._store

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped, at most ``timeout`` seconds; return whether it has.

        Signals are handled meanwhile, so Ctrl-C raises :class:`KeyboardInterrupt` here.
        """
        if timeout is None:
            deadline = None
        else:
            deadline = time.monotonic() + _options.milliseconds("timeout", timeout) / 1000
        while True:
            left_ms = _WAIT_MS
            if deadline is not None:
                left = max(0.0, deadline - time.monotonic())
                left_ms = min(_WAIT_MS, _options.milliseconds("timeout", left))
            if self._done(_abi.lib.kvs_server_wait(self._handle.pointer, left_ms)):
                return True
            if left_ms < _WAIT_MS:
                return False

    def stop(self, timeout: float = 5.0) -> None:
        """Stop the server: no new connections, and requests that have begun are answered.

        Connections that are not done after ``timeout`` seconds are cut off. Returns when all its
        threads have ended; stopping twice does nothing. In the child of a fork this only says that
        the child does not want the server.
        """
        if self._handle.inherited:
            self._handle.ended = True
            return
        status = _abi.lib.kvs_server_stop(
            self._handle.pointer, _options.milliseconds("timeout", timeout)
        )
        self._handle.ended = True
        self._done(status)

    _end = stop

    def __repr__(self) -> str:
        state = "stopped" if self._handle.ended else "running"
        return f"<kvs.Server {self._address!r}, {state}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("a server cannot be pickled or copied; pass its address")
