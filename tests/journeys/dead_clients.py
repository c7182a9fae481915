"""Clients that are slow, deaf or dead, on raw sockets. Each is a block: while it lasts, they are there.

A vanished client goes without FIN or RST where the kernel lets us (TCP_REPAIR needs CAP_NET_ADMIN), elsewhere with RST.
"""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TypeAlias

import numpy as np

from appliance.oip import open_inference_pb2 as oip
from tests import forge
from tests.running import Running

HALF, DEAF, VANISHED, IDLE, STORM = 20, 10, 50, 300, 400  # clients of each kind
CALLS_UNREAD = 100
CONNECT_S_MAX = 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, END_STREAM, END_HEADERS = 0, 1, 4, 1, 4
INITIAL_WINDOW_SIZE = 4
TCP_REPAIR = 19  # linux/tcp.h

Nuisance: TypeAlias = Callable[[Running], AbstractContextManager[None]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113 section 4.1."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(stream: int, method: str = "/inference.GRPCInferenceService/ModelInfer") -> bytes:
    """A call's headers, as literals that are not indexed (RFC 7541 section 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields.items()
    )
    return frame(HEADERS, END_HEADERS, stream, block)


def settings(window: int | None = None) -> bytes:
    return PREFACE + frame(SETTINGS, 0, 0, b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window))


def call(stream: int, model: str = "forged") -> bytes:
    """A whole, valid call."""
    images = forge.image(stream)[None]
    request = oip.ModelInferRequest(model_name=model, raw_input_contents=[images.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=images.shape)
    body = request.SerializeToString()
    return headers(stream) + frame(DATA, END_STREAM, stream, b"\x00" + struct.pack(">I", len(body)) + body)


def half_a_call(stream: int) -> bytes:
    """The beginning of a message of a mebibyte; its end never comes."""
    beginning = np.zeros(8 << 10, np.uint8).tobytes()
    return headers(stream) + frame(DATA, 0, stream, b"\x00" + struct.pack(">I", 1 << 20) + beginning)


def _context(appliance: Running) -> ssl.SSLContext:
    folder = appliance.site.client("reader")
    context = ssl.create_default_context(cafile=folder / "ca.crt")
    context.load_cert_chain(folder / "client.crt", folder / "client.key")
    context.set_alpn_protocols(["h2"])
    return context


def _connect(port: int, received_bytes_max: int | None = None) -> socket.socket:
    made = socket.socket()
    made.settimeout(CONNECT_S_MAX)
    if received_bytes_max is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received_bytes_max)
    made.connect(("127.0.0.1", port))
    return made


def _secure(context: ssl.SSLContext, appliance: Running, received_bytes_max: int | None = None) -> ssl.SSLSocket:
    return context.wrap_socket(_connect(appliance.port, received_bytes_max), server_hostname="localhost")


@contextmanager
def half_messages(appliance: Running) -> Iterator[None]:
    """Callers with a certificate who open streams, send half a message on each, and stall."""
    context = _context(appliance)
    with ExitStack() as stack:
        for _ in range(HALF):
            found = stack.enter_context(_secure(context, appliance))
            found.sendall(settings() + half_a_call(1) + half_a_call(3))
        yield


@contextmanager
def deaf_readers(appliance: Running) -> Iterator[None]:
    """Callers who ask and never read: half of them allow no byte of an answer, the others leave all of it in the socket."""
    context = _context(appliance)
    with ExitStack() as stack:
        for i in range(DEAF):
            found = stack.enter_context(_secure(context, appliance, received_bytes_max=2048))
            found.sendall(settings(window=0 if i % 2 else None))
            found.sendall(b"".join(call(stream) for stream in range(1, 2 * CALLS_UNREAD, 2)))
        yield


@contextmanager
def vanished(appliance: Running) -> Iterator[None]:
    """Callers who are gone, half with a call begun and half with one whose answer is on its way."""
    for i in range(VANISHED):
        found = _connect(appliance.plaintext_port)
        found.sendall(settings() + (half_a_call(1) if i % 2 else call(1)))
        try:
            found.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except PermissionError:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        found.close()
    yield


@contextmanager
def idle(appliance: Running) -> Iterator[None]:
    """Connections that never say a word: half before TLS, half after it."""
    context = _context(appliance)
    with ExitStack() as stack:
        for i in range(IDLE):
            stack.enter_context(_secure(context, appliance) if i % 2 else _connect(appliance.port))
        yield


@contextmanager
def strangers(appliance: Running, count: int) -> Iterator[None]:
    """Connections of nobody: without TLS, without a word."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(_connect(appliance.port))
        yield


def _storm(appliance: Running, number: int, hello: bytes) -> None:
    seed = np.random.default_rng(number)
    noise = seed.bytes(int(seed.integers(1, 2000)))
    port = appliance.plaintext_port if number % 4 == 3 else appliance.port
    said = (noise, hello, hello[: len(hello) // 2], settings() + noise)[number % 4]
    with suppress(OSError), _connect(port) as found:  # to be thrown out is what it deserves
        found.sendall(said)
        found.shutdown(socket.SHUT_WR)


@contextmanager
def storm(appliance: Running) -> Iterator[None]:
    """Some hundred connections, one after the other: noise, TLS handshakes that are abandoned, and HTTP/2 that is none."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        _context(appliance).wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    hello, over = outgoing.read(), threading.Event()

    def blow(first: int) -> None:
        for number in range(first, STORM, 4):
            if over.is_set():
                return
            _storm(appliance, number, hello)

    threads = [threading.Thread(target=blow, args=(first,), name="storm") for first in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def all_of_them(appliance: Running) -> Iterator[None]:
    with ExitStack() as stack:
        for nuisance in NUISANCES.values():
            if nuisance is not all_of_them:
                stack.enter_context(nuisance(appliance))
        yield


NUISANCES: dict[str, Nuisance] = {
    "half messages": half_messages,
    "deaf readers": deaf_readers,
    "vanished": vanished,
    "idle connections": idle,
    "a storm of connections": storm,
    "all of them": all_of_them,
}
