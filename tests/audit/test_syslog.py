"""The feed: every record arrives, in order, at a receiver that we trust and that takes us; what fails is sent again."""

import asyncio
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import pytest
from cryptography import x509

from appliance.audit import stored, syslog
from appliance.audit.record import Entry
from appliance.audit.syslog import Cursor, Receiver
from appliance.cli.authority import Authority
from appliance.errors import ConfigError, FeedFailed
from tests.audit import logs
from tests.audit.logs import VERIFIER
from tests.cli.running import run

ARRIVED_S_MAX = 20
MESSAGE = re.compile(rb"<(\d+)>1 (\S+) (\S+) appliance - (\S+) - (.*)", re.S)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of some segments, and of every outcome that matters here."""
    grow(tmp_path / "log", 300)
    return tmp_path / "log"


def grow(folder: Path, count: int) -> None:
    async def write() -> None:
        journal = logs.journal(folder, segment_bytes=20_000)
        for i in range(count):
            await journal.append(Entry("call", "denied" if i % 3 else "answered", method="/ä"))
        journal.close()

    asyncio.run(write())


class Collector:
    """Accepts one client after the other, and keeps the bytes that each has sent. ``bytes_max``: then it hangs up."""

    def __init__(self, folder: Path, clients: Authority | None, bytes_max: int | None = None) -> None:
        self.authority = Authority()
        folder.mkdir()
        self.authority.server(folder)
        (folder / "ca.pem").write_bytes(self.authority.certificate)
        self.ca, self.heard, self._bytes_max = folder / "ca.pem", list[bytes](), bytes_max
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "server.crt", folder / "server.key")
        if clients is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(cadata=clients.certificate.decode())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            data = b""
            with suppress(OSError), self._context.wrap_socket(plain, server_side=True) as connection:
                while piece := connection.recv(1 << 16):
                    data += piece
                    if self._bytes_max is not None and len(data) > self._bytes_max:
                        break
            self.heard.append(data[: self._bytes_max])

    def messages(self, clients: int = 1) -> list[tuple[int, str, bytes]]:
        """Severity, MSGID and text of every whole message, once so many clients have gone."""
        end = monotonic() + ARRIVED_S_MAX
        while len(self.heard) < clients:
            assert monotonic() < end, "not so many clients came and went"
            self._thread.join(0.01)
        found = []
        for stream in self.heard:
            for message in frames(stream):
                matched = MESSAGE.fullmatch(message)
                assert matched is not None, message
                found.append((int(matched[1]) - 13 * 8, matched[4].decode(), matched[5]))
        return found

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # a thread that accepts keeps it open
        self._listener.close()
        self._thread.join()


def frames(data: bytes) -> Iterator[bytes]:
    """The messages of a stream, by RFC 5425 section 4.3.1; one that is cut off is left out."""
    while data:
        length, _, data = data.partition(b" ")
        if len(data) >= int(length):
            yield data[: int(length)]
        data = data[int(length) :]


@contextmanager
def collecting(folder: Path, clients: Authority | None = None, bytes_max: int | None = None) -> Iterator[Collector]:
    made = Collector(folder, clients, bytes_max)
    try:
        yield made
    finally:
        made.close()


def receiver(collector: Collector, certificate: Path | None = None) -> Receiver:
    files = (None, None) if certificate is None else (certificate / "client.crt", certificate / "client.key")
    return Receiver.of("localhost", collector.port, collector.ca, *files)


def client_of(authority: Authority, folder: Path) -> Path:
    authority.client(folder, x509.DNSName("appliance"))
    return folder


def records(messages: list[tuple[int, str, bytes]]) -> list[bytes]:
    return [text for _, kind, text in messages if kind != "checkpoint"]


def test_every_record_arrives_once_in_order_with_a_checkpoint_that_verifies(log: Path, tmp_path: Path) -> None:
    with collecting(tmp_path / "collector", clients := Authority()) as collector:
        cursor = Cursor(tmp_path / "cursor")
        syslog.send(log, receiver(collector, client_of(clients, tmp_path / "client")), cursor)
        messages = collector.messages()
    assert records(messages) == logs.payloads(log)
    assert cursor.next == Cursor(tmp_path / "cursor").next == 300
    assert [severity for severity, kind, _ in messages if kind == "call"][:3] == [6, 5, 5]
    severity, kind, text = messages[-1]
    assert (severity, kind) == (6, "checkpoint")
    assert VERIFIER.open(json.loads(text)["checkpoint"].encode()).size == 300


def test_the_next_time_goes_on_from_the_cursor(log: Path, tmp_path: Path) -> None:
    with collecting(tmp_path / "collector") as collector:
        syslog.send(log, receiver(collector), Cursor(tmp_path / "cursor"))
        first = records(collector.messages())
        grow(log, 20)
        syslog.send(log, receiver(collector), Cursor(tmp_path / "cursor"))
        syslog.send(log, receiver(collector), Cursor(tmp_path / "cursor"))
        assert records(collector.messages(3)) == logs.payloads(log)
    assert len(first) == 300


@pytest.mark.parametrize("certificate", ["none", "a stranger's"])
def test_a_receiver_that_refuses_our_certificate_moves_no_cursor(log: Path, tmp_path: Path, certificate: str) -> None:
    with collecting(tmp_path / "collector", clients=Authority()) as collector:
        ours = None if certificate == "none" else client_of(Authority(), tmp_path / "client")
        cursor = Cursor(tmp_path / "cursor")
        with pytest.raises(FeedFailed):
            syslog.send(log, receiver(collector, ours), cursor)
    assert cursor.next == 0
    assert not (tmp_path / "cursor").exists()


def test_a_receiver_that_is_not_the_one_we_trust_gets_nothing(log: Path, tmp_path: Path) -> None:
    with collecting(tmp_path / "collector") as collector:
        (tmp_path / "other.pem").write_bytes(Authority().certificate)
        with pytest.raises(FeedFailed, match="not of the given CA"):
            syslog.send(
                log, Receiver.of("localhost", collector.port, tmp_path / "other.pem", None, None), Cursor(tmp_path / "c")
            )
        assert collector.messages() == []


def test_what_a_receiver_lost_when_it_hung_up_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "PORTION_RECORDS", 50)
    grow(tmp_path / "log", 300)
    path = tmp_path / "cursor"
    with collecting(tmp_path / "collector", bytes_max=40_000) as collector:
        for attempt in range(1, 11):
            with suppress(FeedFailed):
                syslog.send(tmp_path / "log", receiver(collector), Cursor(path))
            arrived = records(collector.messages(attempt))
            assert Cursor(path).next <= len(set(arrived))
            if Cursor(path).next == 300:
                break
    assert attempt > 1
    assert list(dict.fromkeys(arrived)) == logs.payloads(tmp_path / "log")


def test_what_comes_later_is_sent_too_and_a_checkpoint_once_a_minute(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, turns = [0.0], iter([20, 0, 0])

    def later(seconds: float) -> None:
        """Time passes; something is recorded, or nothing, and in the end somebody ends us."""
        now[0] += 40.0
        grow(log, next(turns))

    monkeypatch.setattr(syslog, "sleep", later)
    monkeypatch.setattr(syslog, "CHECKPOINT_S", 60.0)
    monkeypatch.setattr(syslog, "monotonic", lambda: monotonic() + now[0])
    with collecting(tmp_path / "collector") as collector:
        with pytest.raises(StopIteration):
            syslog.send(log, receiver(collector), Cursor(tmp_path / "cursor"), follow=True)
        messages = collector.messages()
    assert records(messages) == logs.payloads(log)
    checkpoints = [
        (at, json.loads(text)["checkpoint"]) for at, (_, kind, text) in enumerate(messages) if kind == "checkpoint"
    ]
    assert [at for at, _ in checkpoints] == [300, 321], "at once, and when a minute had passed"
    assert [VERIFIER.open(note.encode()).size for _, note in checkpoints] == [300, 320]


def test_a_log_that_is_another_than_was_sent_is_not_gone_on_with(log: Path, tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    with collecting(tmp_path / "collector") as collector:
        syslog.send(log, receiver(collector), Cursor(path))
        shutil.rmtree(log)
        grow(log, 100)
        for size in (100, 400):  # shorter than what was sent, and grown past it
            with pytest.raises(FeedFailed, match="does not go on where the cursor stands"):
                syslog.send(log, receiver(collector), Cursor(path))
            assert Cursor(path).next == 300
            grow(log, 400 - size)
        path.write_text("100\n")  # what a person writes after having looked
        syslog.send(log, receiver(collector), Cursor(path))
        assert Cursor(path).next == 400
        shutil.rmtree(log)
        grow(log, 500)
        for old in sorted(log.glob("*.log"))[:-1]:
            old.unlink()
        begins = stored.first(log)
        path.write_text(f"{begins}\n")
        syslog.send(log, receiver(collector), Cursor(path))
        path.write_text(f"{begins - 5}\n")
        with pytest.raises(FeedFailed):
            syslog.send(log, receiver(collector), Cursor(path))


def test_the_command_says_what_it_did_and_a_cursor_that_is_none_is_refused(log: Path, tmp_path: Path) -> None:
    with collecting(tmp_path / "collector") as collector:
        command = ["audit", "send", log, "--to", f"localhost:{collector.port}", "--ca", collector.ca, "--cursor"]
        ran = run(*command, tmp_path / "cursor")
        assert (ran.code, ran.out) == (0, "All has arrived; the next record is 300.\n")
        assert (tmp_path / "cursor").read_text().startswith("300 ")
        (tmp_path / "no cursor").write_text("Mary\n")
        assert run(*command, tmp_path / "no cursor").code == 2
        collector.close()
        ran = run(*command, tmp_path / "another")
        assert (ran.code, ran.err.count("\n")) == (5, 1)
    with pytest.raises(ConfigError):
        Receiver.of("localhost", 1, tmp_path / "cursor", None, None)


RSYSLOG = """\
global(workDirectory="{folder}" maxMessageSize="64k"
       defaultNetstreamDriverCAFile="{folder}/clients.pem"
       defaultNetstreamDriverCertFile="{folder}/server.crt"
       defaultNetstreamDriverKeyFile="{folder}/server.key")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
template(name="text" type="string" string="%msgid% %msg%\\n")
input(type="imtcp" address="127.0.0.1" port="{port}")
action(type="omfile" file="{folder}/out" template="text")
"""


@pytest.mark.skipif(shutil.which("rsyslogd") is None, reason="rsyslog and rsyslog-gnutls are not installed")
def test_a_real_rsyslog_takes_every_record_and_refuses_a_strangers_certificate(log: Path, tmp_path: Path) -> None:
    folder, server, clients = tmp_path / "rsyslog", Authority(), Authority()
    folder.mkdir()
    server.server(folder)
    (folder / "ca.pem").write_bytes(server.certificate)
    (folder / "clients.pem").write_bytes(clients.certificate)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / "rsyslog.conf").write_text(RSYSLOG.format(folder=folder, port=port))
    command = ["rsyslogd", "-n", "-f", folder / "rsyslog.conf", "-i", folder / "pid"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _listening(port)
            stranger, ours = client_of(Authority(), tmp_path / "stranger"), client_of(clients, tmp_path / "client")
            cursor = Cursor(tmp_path / "cursor")
            with pytest.raises(FeedFailed):
                syslog.send(log, _of(port, folder, stranger), cursor)
            assert cursor.next == 0
            syslog.send(log, _of(port, folder, ours), cursor)
        finally:
            process.terminate()
    lines = [line.split(b" ", 1) for line in (folder / "out").read_bytes().splitlines()]
    assert [text.strip() for kind, text in lines if kind == b"call"] == [one.data for one in stored.read(log)]
    assert lines[-1][0] == b"checkpoint"


def _of(port: int, folder: Path, client: Path) -> Receiver:
    return Receiver.of("localhost", port, folder / "ca.pem", client / "client.crt", client / "client.key")


def _listening(port: int) -> None:
    end = monotonic() + ARRIVED_S_MAX
    while monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError("rsyslog did not start")
