"""The server inside: other processes see the store that this one has open."""

from __future__ import annotations

import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import STRICT

import kvs
from kvs import _abi


@pytest.fixture
def server(store: kvs.Store) -> Iterator[kvs.Server]:
    """A server on a free port, of `store`."""
    with store.serve() as running:
        yield running


def ask_once(server: kvs.Server, request: object) -> bytes:
    """Send one request as the first clients do: half-close, and read to the end."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(json.dumps(request).encode())
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as reply:
            return reply.read()


def test_clients_and_the_program_see_one_store(store: kvs.Store, server: kvs.Server) -> None:
    store[b"no"] = b"Oslo"
    assert ask_once(server, {"Get": {"key": "no"}}) == b'{"Ok":"Oslo"}'
    assert ask_once(server, {"Set": {"key": "se", "value": "Göteborg"}}) == b'{"Ok":null}'
    assert store[b"se"] == "Göteborg".encode()
    assert ask_once(server, {"Remove": {"key": "no"}}) == b'{"Ok":null}'
    assert b"no" not in store
    assert ask_once(server, {"Remove": {"key": "no"}}) == b'{"Err":"Key not found"}'


def test_a_connection_takes_many_requests_in_order(store: kvs.Store, server: kvs.Server) -> None:
    requests = b"".join(
        json.dumps({"Set": {"key": f"k{n}", "value": f"v{n}"}}).encode()
        + json.dumps({"Get": {"key": f"k{n}"}}).encode()
        for n in range(200)
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(requests)
        with connection.makefile("rb") as replies:
            for n in range(200):
                assert json.loads(replies.readline()) == {"Ok": None}
                assert json.loads(replies.readline()) == {"Ok": f"v{n}"}
    assert len(store) == 200


def client_program() -> Path | None:
    """Return where kvs-client is: where KVS_CLIENT says, else beside the library."""
    given = os.environ.get("KVS_CLIENT")
    beside = _abi.library_path.with_name("kvs-client")
    return Path(given) if given else beside if beside.is_file() else None


@pytest.mark.skipif(client_program() is None, reason="kvs-client is not built; see KVS_CLIENT")
def test_the_client_program_reads_and_writes_the_store(
    store: kvs.Store, server: kvs.Server
) -> None:
    def client(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [str(client_program()), *arguments, "--addr", server.address],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    store[b"1F980"] = b"CRAB"
    assert client("get", "1F980") == (0, "CRAB", "")
    assert client("set", "k", "v") == (0, "", "")
    assert store[b"k"] == b"v"
    assert client("rm", "k") == (0, "", "")
    assert b"k" not in store
    assert client("get", "k") == (0, "Key not found", "")
    code, out, err = client("rm", "k")
    assert (code != 0, out, "Key not found" in err) == (True, "", True)


def test_it_says_where_it_listens(server: kvs.Server) -> None:
    assert server.port > 0
    assert server.address == f"127.0.0.1:{server.port}"
    assert repr(server) == f"<kvs.Server '{server.address}', running>"


@pytest.mark.parametrize("pool", ["shared-queue", "rayon", "naive"])
def test_every_pool_serves(store: kvs.Store, pool: Any) -> None:
    store[b"k"] = pool.encode()
    with store.serve(pool=pool, threads=2, connections_max=8) as server:
        assert ask_once(server, {"Get": {"key": "k"}}) == json.dumps({"Ok": pool}).encode().replace(
            b" ", b""
        )


def test_limits_of_requests_are_obeyed(store: kvs.Store) -> None:
    with store.serve(request_bytes_max=40, request_timeout=0.1, stall_timeout=60) as server:
        assert ask_once(server, {"Set": {"key": "k", "value": "v"}}) == b'{"Ok":null}'
        refused = ask_once(server, {"Set": {"key": "k", "value": "v" * 40}})
        assert refused.startswith(b'{"Err":')
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(b'{"Get":')
            while connection.recv(100):
                pass
    # Two requests that have arrived in part are more than all clients may have, though the first
    # 64 KiB of each do not count. (Two threads might refuse both.)
    with store.serve(request_bytes_max=160_000, unfinished_bytes_max=0, threads=1) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        for client in clients:
            client.sendall(b'{"Set":{"key":"' + b"k" * 150_000)
        refused_one, _, _ = select.select(clients, [], [], 20)
        assert refused_one
        assert refused_one[0].recv(7) == b'{"Err":'
        for client in clients:
            client.close()
    for option in ("request_timeout", "stall_timeout"):
        limits: dict[str, Any] = {option: 0}
        with pytest.raises(kvs.InvalidArgumentError, match=option):
            store.serve(**limits)
    assert store[b"k"] == b"v"


def test_a_socket_that_listens_already_is_served_and_stays_open(store: kvs.Store) -> None:
    store[b"k"] = b"v"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for _ in range(2):
            with store.serve(listen_fd=listener.fileno()) as server:
                assert server.port == port
                assert ask_once(server, {"Get": {"key": "k"}}) == b'{"Ok":"v"}'
        assert listener.getsockname()[1] == port


def test_stopping_frees_the_port_and_keeps_the_store_open(store: kvs.Store) -> None:
    server = store.serve()
    server.stop()
    server.stop()
    assert server.wait(0)
    assert repr(server).endswith("stopped>")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=10)
    store[b"k"] = b"v"
    for _ in range(3):
        with store.serve(server.address) as again:
            assert again.port == server.port
            assert ask_once(again, {"Get": {"key": "k"}}) == b'{"Ok":"v"}'


def test_stopping_cuts_off_a_client_that_stays(server: kvs.Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as idle:
        idle.sendall(b'{"Get":{"key"')
        start = time.monotonic()
        server.stop(timeout=0.2)
        assert time.monotonic() - start < 5
        with suppress(ConnectionResetError):
            assert idle.recv(100) == b""


def test_waiting_ends_when_the_server_stops_or_the_time_is_over(server: kvs.Server) -> None:
    for timeout in (0, 0.05, 0.45):
        start = time.monotonic()
        assert not server.wait(timeout)
        assert timeout <= time.monotonic() - start < timeout + 5
    stopper = threading.Timer(0.3, server.stop)
    stopper.start()
    assert server.wait()
    assert server.wait(0)
    stopper.join()


def test_an_address_in_use_is_a_network_error(store: kvs.Store, server: kvs.Server) -> None:
    with pytest.raises(kvs.NetworkError, match=server.address) as caught:
        store.serve(server.address)
    assert caught.value.name == "KVS_ERR_NET"
    assert caught.value.path == server.address
    assert isinstance(caught.value, OSError)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "127.0.0.1:99999", "1:2:3"])
def test_an_address_that_is_none_is_an_error_that_names_it(store: kvs.Store, address: str) -> None:
    with pytest.raises(kvs.Error, match=address) as caught:
        store.serve(address)
    assert caught.value.path == address


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pool": "one"}, "shared-queue, rayon or naive"),
        ({"threads": 100_000}, "THREADS"),
        ({"threads": -1}, "between 0"),
        ({"listen_fd": -1}, "between 0"),
        ({"address": "127.0.0.1:0\0"}, "null"),
    ],
    ids=str,
)
def test_an_option_that_cannot_work_is_a_value_error(
    store: kvs.Store, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        store.serve(**options)


def test_a_server_cannot_be_pickled(server: kvs.Server) -> None:
    with pytest.raises(TypeError, match="address"):
        pickle.dumps(server)


def test_ctrl_c_ends_a_wait_without_end(tmp_path: Path) -> None:
    # Tests that run in the background may be made to ignore the signal, which is passed on.
    program = """
import signal, sys, kvs
signal.signal(signal.SIGINT, signal.default_int_handler)
with kvs.open(sys.argv[1]) as store, store.serve() as server:
    try:
        print(server.port, flush=True)
        server.wait()
    except KeyboardInterrupt:
        print("interrupted")
"""
    with subprocess.Popen(
        [sys.executable, *STRICT, "-c", program, tmp_path / "s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as host:
        assert host.stdout
        assert int(host.stdout.readline()) > 0
        host.send_signal(signal.SIGINT)
        try:
            out, err = host.communicate(timeout=20)
        finally:
            host.kill()
    assert (host.returncode, out, err) == (0, "interrupted\n", "")
