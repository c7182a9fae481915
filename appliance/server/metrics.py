"""Prometheus metrics, on a port of their own with ``/livez`` and ``/readyz``.

Calls are counted from their audit entries, so every call is counted exactly once, under the outcome that is on record. The
labels are a closed set: models, methods, outcomes, decisions. Never a caller's own words.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from appliance.alarms import Alarm
from appliance.audit.record import Entry
from appliance.drift import Drift, Share
from appliance.servables import Servable
from appliance.state import State

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STAGES = ("decode", "queue", "run")
_SHARES: dict[str, Callable[[Drift], Share]] = {"abstain": lambda d: d.abstained, "out_of_distribution": lambda d: d.unknown}
_DECISIONS = {"A": "accept", "B": "abstain", "O": "out_of_distribution"}


class Metrics:
    """Everything we count. Implements the ``Watcher`` of the journal and that of the servables."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        self._children: dict[tuple[Any, tuple[str, ...]], Any] = {}
        seconds = partial(Histogram, registry=r, buckets=_SECONDS)
        self._calls = Counter("appliance_calls", "Calls by outcome", ["method", "outcome", "error"], registry=r)
        self._call_s = seconds("appliance_call_seconds", "Call, record included", ["method"])
        self._stage_s = seconds("appliance_stage_seconds", "Stages of a prediction", ["model", "stage"])
        self._rows = Counter("appliance_rows", "Rows answered, by decision", ["model", "decision"], registry=r)
        tenths = [i / 10 for i in range(1, 11)]
        self._confidence = Histogram(
            "appliance_confidence", "Probability of the top class", ["model"], buckets=tenths, registry=r
        )
        sizes = [1 << i for i in range(11)]
        self._batch_rows = Histogram("appliance_batch_rows", "Rows run together", ["model"], buckets=sizes, registry=r)
        self._commit_s = seconds("appliance_audit_commit_seconds", "Write and sync of one group")
        self._records = Counter("appliance_audit_records", "Records made durable", registry=r)
        self._log_bytes = Gauge("appliance_audit_log_bytes", "Size of the log's files", registry=r)
        self._writable = Gauge("appliance_audit_writable", "1 while records can be written", registry=r)
        model = ["model", "version"]
        self._queue_rows = Gauge("appliance_queue_rows", "Rows waiting", model, registry=r)
        self._queue_bytes = Gauge("appliance_queue_bytes", "Bytes waiting", model, registry=r)
        self._model = Gauge("appliance_model_info", "1 for a model that serves", [*model, "digest", "provider"], registry=r)
        self._load_s = Gauge("appliance_model_load_seconds", "Bundle to ready", model, registry=r)
        self._margin = Gauge("appliance_golden_margin", "Largest golden |delta logit| here", model, registry=r)
        share = [*model, "decision"]
        self._share = Gauge("appliance_share", "Of the last rows, by the signed rule", share, registry=r)
        self._share_expected = Gauge("appliance_share_expected", "The same in validation", share, registry=r)
        self._grant_s = Gauge("appliance_grant_seconds_remaining", "Until the grant's last day", model, registry=r)
        self._certificate_s = Gauge(
            "appliance_certificate_seconds_remaining", "Until the server's certificate ends", registry=r
        )
        self._trust_s = Gauge("appliance_trust_seconds_remaining", "Until trust is no longer fresh", ["vendor"], registry=r)
        self._alarm = Gauge("appliance_alarm", "1 while an alarm is on", ["kind", "subject"], registry=r)

    def recorded(self, entry: Entry, seconds: float) -> None:
        if entry.event != "call":
            return
        method = (entry.method or "").rpartition("/")[2]
        self._known(self._calls, method, entry.outcome, entry.error or "").inc()
        self._known(self._call_s, method).observe(seconds)
        if entry.model is None or entry.output is None or entry.run is None:
            return
        model = entry.model["id"]
        for stage in _STAGES:
            self._known(self._stage_s, model, stage).observe(entry.run[f"{stage}_us"] / 1e6)
        for letter, decision in _DECISIONS.items():
            if count := entry.output["decisions"].count(letter):
                self._known(self._rows, model, decision).inc(count)
        confidence_of = self._known(self._confidence, model)
        for confidence in entry.output["confidence_e6"]:
            confidence_of.observe(confidence / 1e6)

    def _known(self, metric: Any, *labels: str) -> Any:
        """A metric's child; asking for it anew takes longer than counting."""
        key = (metric, labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def batch_run(self, model: str, rows: int) -> None:
        """A batch was run; called in a worker's thread."""
        self._known(self._batch_rows, model).observe(rows)

    def committed(self, records: int, seconds: float) -> None:
        self._records.inc(records)
        self._commit_s.observe(seconds)

    def log_state(self, writable: Callable[[], bool], size_bytes: Callable[[], int]) -> None:
        self._writable.set_function(lambda: float(writable()))
        self._log_bytes.set_function(lambda: float(size_bytes()))

    def serves(self, servable: Servable) -> None:
        """Adds a model's own figures; the gauges ask when they are scraped."""
        model, batcher, which = servable.model, servable.batcher, _which(servable)
        self._model.labels(*which, model.digest, model.session.provider).set(1)
        self._load_s.labels(*which).set(model.load_s)
        self._margin.labels(*which).set(model.golden_margin)
        self._queue_rows.labels(*which).set_function(lambda: float(batcher.queue_rows))
        self._queue_bytes.labels(*which).set_function(lambda: float(batcher.queue_bytes))
        for decision, of in _SHARES.items():
            self._share.labels(*which, decision).set_function(partial(_seen, servable, of))
            self._share_expected.labels(*which, decision).set(of(servable.drift).expected)
        remaining = lambda: (servable.model.terms.not_after - datetime.now(UTC)).total_seconds()  # noqa: E731
        self._grant_s.labels(*which).set_function(remaining)

    def ended(self, servable: Servable) -> None:
        """Takes a model's own figures away."""
        model, which = servable.model, _which(servable)
        self._model.remove(*which, model.digest, model.session.provider)
        for gauge in (self._load_s, self._margin, self._queue_rows, self._queue_bytes, self._grant_s):
            gauge.remove(*which)
        for decision in _SHARES:
            self._share.remove(*which, decision)
            self._share_expected.remove(*which, decision)

    def certificate(self, not_after: datetime) -> None:
        self._certificate_s.set_function(lambda: (not_after - datetime.now(UTC)).total_seconds())

    def alarmed(self, on: Sequence[Alarm], state: State, now: datetime) -> None:
        """Shows which alarms are on, and how long trust lasts."""
        self._alarm.clear()
        for alarm in on:
            self._alarm.labels(alarm.kind, alarm.subject).set(1)
        for name, vendor in state.vendors.items():
            self._trust_s.labels(name).set((vendor.expires - now).total_seconds())


def _seen(servable: Servable, of: Callable[[Drift], Share]) -> float:
    return of(servable.drift).seen


def _which(servable: Servable) -> tuple[str, str]:
    return servable.model.name, str(servable.model.version)


class MetricsServer:
    """A small HTTP server in a thread of its own: ``/metrics``, ``/livez``, ``/readyz``; anything else is 404."""

    def __init__(self, address: tuple[str, int], metrics: Metrics, ready: Callable[[], bool]) -> None:
        """Raises OSError where the address cannot be bound."""
        pages = make_wsgi_app(metrics.registry)

        def app(environ: dict[str, Any], start: Any) -> Any:
            path = environ["PATH_INFO"]
            if path == "/metrics":
                return pages(environ, start)
            status = {"/livez": "200 OK", "/readyz": "200 OK" if ready() else "503 Service Unavailable"}
            start(status.get(path, "404 Not Found"), [("Content-Type", "text/plain")])
            return [status.get(path, "404 Not Found").encode() + b"\n"]

        self._server = make_server(*address, app, server_class=_Server, handler_class=_Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Binds without looking up our own name in DNS, which the standard library's server does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds for a client to finish its request

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: scrapes are not news."""
