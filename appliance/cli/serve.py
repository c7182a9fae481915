"""``appliance serve``"""

import asyncio
import json
import logging
import logging.handlers
import os
import queue
import resource
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import uvloop

from appliance import config, wiring
from appliance.cli.options import FILE
from appliance.server.run import Ports

WAITING_LINES_MAX = 1000


@click.command("serve")
@click.option("--config", "path", type=FILE, required=True, help="The site's appliance.toml.")
def command(path: Path) -> None:
    """Serve the active models until SIGTERM. Logs one JSON line an event to stdout."""
    settings = config.read(path)
    # Connections are files: with as many as the system lets us have, strangers do not use them up soon.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    _log_json_lines()

    def say(event: str, ports: Ports) -> None:
        _write(event=event, pid=os.getpid(), port=ports.tls, plaintext_port=ports.plaintext, metrics_port=ports.metrics)

    # uvloop: a third more requests a second than asyncio's own loop (docs/decisions/0016).
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(wiring.serve(settings, say))
    _write(event="stopped")


def _write(**fields: Any) -> None:
    """One line at once, whatever else is being written."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    sys.stdout.write(json.dumps({"time": now} | fields) + "\n")
    sys.stdout.flush()


class _JsonLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record)
        except Exception:  # as every handler: what logs is not to fail by it
            self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {
            "event": "log",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        _write(**fields)


class _Bounded(logging.handlers.QueueHandler):
    """Hands lines to a thread, and drops them while nobody reads what it writes: logging must not stop the appliance."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # it stays in this process, with its traceback


def _log_json_lines() -> None:
    lines: queue.Queue[logging.LogRecord] = queue.Queue(WAITING_LINES_MAX)
    logging.handlers.QueueListener(lines, _JsonLines()).start()
    logging.basicConfig(level=logging.INFO, handlers=[_Bounded(lines)])
