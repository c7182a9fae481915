"""Sends the log to a hospital's collector: syslog messages (RFC 5424) over TLS (RFC 5425), from a cursor on.

The cursor is the index of the first record that is not known to have arrived, and the leaf hash of the one before it, in a
file: a log that was put back, or goes on behind a gap, is another one. It moves when the receiver's machine has
acknowledged every byte and has not refused us since: with TLS 1.3 a client learns that its certificate is refused only
when it reads, long after its first records have left. So a failure loses nothing; some records may come twice.

A record is one message: facility "log audit", the event as MSGID, and the exact bytes of the record as its text. Once a
minute, if anything is new, and at the end, a message ``checkpoint`` holds the log's newest signed checkpoint: what a
collector has of that, nobody on the appliance can take back.
"""

import fcntl
import json
import re
import socket
import ssl
import struct
import termios
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic, sleep

from appliance import canonical, durable
from appliance.audit import stored
from appliance.audit.stored import Place, Stored
from appliance.audit.tree import leaf_hash
from appliance.errors import ConfigError, FeedFailed

FACILITY_LOG_AUDIT, NOTICE, INFORMATIONAL = 13, 5, 6
PORTION_RECORDS = 500
CONNECT_S_MAX, ARRIVE_S_MAX = 10.0, 30.0
REFUSAL_S = 0.3  # so long a receiver has to refuse us after our first records have arrived
CLOSE_S_MAX = 1.0
POLL_S, CHECKPOINT_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where messages go, and who we are to it. The certificate of the receiver must be of ``ca`` and of its host's name."""

    host: str
    port: int
    context: ssl.SSLContext

    @classmethod
    def of(cls, host: str, port: int, ca: Path, certificate: Path | None, key: Path | None) -> "Receiver":
        """Raises ConfigError where the files are not good."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(ca)
            if certificate is not None:
                context.load_cert_chain(certificate, key)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError("the receiver's CA, or our certificate and key, cannot be used") from error
        return cls(host, port, context)


class Cursor:
    """The index of the next record to send, and the leaf hash of the one before it, in hex; kept in a file."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where the file holds something else."""
        self._path = path
        text = path.read_text() if path.exists() else "0\n"
        if (found := re.fullmatch(r"([0-9]{1,15})(?: ([0-9a-f]{64}))?\n?", text)) is None:
            raise ConfigError(f"{path.name} is no cursor: it should hold the index of a record")
        self.next, self.leaf = int(found[1]), found[2]

    def move(self, last: Stored) -> None:
        """Remembers the last record that has arrived, whole or not at all."""
        self.next, self.leaf = last.index + 1, leaf_hash(last.data).hex()
        durable.replace(self._path, f"{self.next} {self.leaf}\n".encode())

    def last_of(self, directory: Path) -> Stored | None:
        """The record before it, if that is still there.

        Raises:
            FeedFailed: the log is not the one that was sent, or records that were not sent are gone.
        """
        if self.next == 0:
            return None
        last = next(stored.read(directory, self.next - 1, self.next), None)
        pruned = last is None and stored.first(directory) == self.next
        if not pruned and (last is None or (self.leaf is not None and leaf_hash(last.data).hex() != self.leaf)):
            raise FeedFailed(
                "The log does not go on where the cursor stands: it was put back, goes on behind a gap, or was pruned "
                "further. Give a cursor file that holds the index to go on with."
            )
        return last


def send(directory: Path, receiver: Receiver, cursor: Cursor, *, follow: bool = False) -> None:
    """Sends what is behind the cursor; with ``follow``, goes on for ever.

    Raises:
        FeedFailed: the receiver cannot be reached, refuses us, or has gone. The cursor says how far it came.
        AuditLogError: the log cannot be read.
    """
    with _Connection(receiver) as connection:
        newest, checkpoint_at, place = cursor.last_of(directory), 0.0, Place()
        while True:
            records = stored.read(directory, cursor.next, place=place)
            while portion := list(islice(records, PORTION_RECORDS)):
                stored.sync(directory)  # what the appliance has written, and perhaps not yet made durable
                connection.deliver(map(_message, portion))
                newest = portion[-1]
                cursor.move(newest)
            if newest is not None and (not follow or monotonic() >= checkpoint_at):
                connection.deliver([_checkpoint(newest)])
                newest, checkpoint_at = None, monotonic() + CHECKPOINT_S
            if not follow:
                return
            connection.require_open()
            sleep(POLL_S)


class _Connection:
    def __init__(self, receiver: Receiver) -> None:
        self._receiver, self._taken = receiver, False

    def __enter__(self) -> "_Connection":
        receiver = self._receiver
        try:
            plain = socket.create_connection((receiver.host, receiver.port), CONNECT_S_MAX)
            self._socket = receiver.context.wrap_socket(plain, server_hostname=receiver.host)
        except ssl.SSLCertVerificationError as error:
            raise FeedFailed("The receiver's certificate is not of the given CA, or not for this name.") from error
        except (ssl.SSLError, OSError) as error:
            raise FeedFailed("The receiver cannot be reached, or refuses TLS.") from error
        return self

    def __exit__(self, *raised: object) -> None:
        with suppress(OSError, ValueError):
            self._socket.settimeout(CLOSE_S_MAX)
            self._socket.unwrap()  # close_notify: RFC 5425, section 4.4
        self._socket.close()

    def deliver(self, messages: Iterable[bytes]) -> None:
        """Returns when all has arrived and, the first time, the receiver has had time to refuse us. Raises FeedFailed."""
        try:
            self._socket.settimeout(ARRIVE_S_MAX)
            self._socket.sendall(b"".join(b"%d %s" % (len(message), message) for message in messages))
            end = monotonic() + ARRIVE_S_MAX
            while _unacknowledged(self._socket):
                if monotonic() > end:
                    raise FeedFailed("The receiver takes nothing any more.")
                self.require_open(0.01)
        except (ssl.SSLError, OSError) as error:
            raise FeedFailed("The receiver has gone, or refuses our certificate.") from error
        self.require_open(0.01 if self._taken else REFUSAL_S)
        self._taken = True

    def require_open(self, patience_s: float = 0.01) -> None:
        """Raises FeedFailed where the receiver has closed the connection, or refuses us."""
        self._socket.settimeout(patience_s)
        try:
            closed = self._socket.recv(1) == b""  # a receiver has nothing to say
        except (TimeoutError, ssl.SSLWantReadError):
            return
        except (ssl.SSLError, OSError) as error:
            raise FeedFailed("The receiver has gone, or refuses our certificate.") from error
        if closed:
            raise FeedFailed("The receiver has closed the connection.")


def _unacknowledged(connection: socket.socket) -> int:
    """Bytes that the receiver's machine has not acknowledged (SIOCOUTQ, tcp(7))."""
    answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


def _message(found: Stored) -> bytes:
    said = json.loads(found.data)
    severity = INFORMATIONAL if said["outcome"] in ("answered", "done") else NOTICE
    return _syslog(severity, said["time"], said["event"], found.data)


def _checkpoint(last: Stored) -> bytes:
    text = canonical.encode({"checkpoint": last.checkpoint.decode()})
    return _syslog(INFORMATIONAL, json.loads(last.data)["time"], "checkpoint", text)


def _syslog(severity: int, time: str, kind: str, text: bytes) -> bytes:
    """One message of RFC 5424, section 6."""
    head = f"<{FACILITY_LOG_AUDIT * 8 + severity}>1 {time} {socket.gethostname()[:255]} appliance - {kind[:32]} - "
    return head.encode("ascii", "replace") + text
