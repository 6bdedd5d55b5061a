"""Reconciling again and again: a pass every so often, and one at once when a signed webhook rings.

What slips past the store stands for at most the time between two passes and the length of one: the window, which each
pass states. Webhooks only shorten it. MLflow sends none for a stage, a rename or a deletion, may lose them, and in 3.17
delivers events of one workspace to another's address; so nothing in one is believed but that somebody who has the
secret sent it now. What then is, the registry is asked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mlseal.errors import Error, Misuse, Refusal, Unchecked
from mlseal_mlflow.reconcile import Finding

SIGNATURE, TIMESTAMP, DELIVERY = "X-MLflow-Signature", "X-MLflow-Timestamp", "X-MLflow-Delivery-Id"
MAX_BODY = 1 << 20
MAX_SKEW_SECONDS = 300
REMEMBERED = 10_000
MIN_PAUSE_SECONDS = 1.0
"""Between two passes, however often somebody rings."""
MIN_SECRET = 16


@dataclass(frozen=True)
class Pass:
    """One look at everything.

    ``window`` is how long a promotion may have stood unseen when this pass ended; None for the first: it cannot know.
    """

    number: int
    woken: bool
    findings: tuple[Finding, ...]
    seconds: float
    window: float | None
    error: Error | None = None

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """Promotions that must not stand."""
        return tuple(finding for finding in self.findings if finding.error is not None)


class Doorbell:
    """Tells signed deliveries from others, each once.

    Args:
        secret: shared with the webhook in MLflow.
        now: seconds since 1970.
    """

    def __init__(self, secret: bytes, now: Callable[[], float] = time.time) -> None:
        if len(secret) < MIN_SECRET:
            raise Misuse(
                "the webhook's secret is too short", got=f"{len(secret)} bytes", expected=f"at least {MIN_SECRET}"
            )
        self._secret, self._now = secret, now
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self.rung = threading.Event()

    def deliver(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Ring for a delivery; says whether it was new. Raises `Refusal` unless the secret's holder sent it now."""
        given = {key.lower(): value for key, value in headers.items()}
        delivery, stamp = given.get(DELIVERY.lower(), ""), given.get(TIMESTAMP.lower(), "")
        signed = f"{delivery}.{stamp}.".encode() + body
        mac = base64.b64encode(hmac.new(self._secret, signed, hashlib.sha256).digest()).decode()
        if not hmac.compare_digest(given.get(SIGNATURE.lower(), "").encode(), f"v1,{mac}".encode()):
            raise Refusal("this webhook delivery is not signed with the secret", expected=f"a {SIGNATURE} header")
        if not stamp.isascii() or not stamp.isdigit() or abs(self._now() - int(stamp)) > MAX_SKEW_SECONDS:
            raise Refusal("this webhook delivery is not of now", got=stamp[:40], expected=f"± {MAX_SKEW_SECONDS} s")
        with self._lock:
            if delivery in self._seen:
                return False
            self._seen[delivery] = None
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        self.rung.set()
        return True


def watch(
    look: Callable[[], Iterator[Finding]],
    every: float,
    rung: threading.Event,
    *,
    passes: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Pass]:
    """A pass now, then one each `every` seconds or when `rung` is set, until there were `passes`.

    A pass that fails is given out with its error, and the next one comes all the same.
    """
    last: float | None = None
    number, woken = 0, False
    while passes is None or number < passes:
        number, began, error = number + 1, clock(), None
        rung.clear()  # before looking: what is rung for meanwhile is looked at again
        findings: list[Finding] = []
        try:
            findings.extend(look())
        except Error as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 - a server that is away comes back; the watch goes on
            error = Unchecked("the registry could not be read", got=f"{type(raised).__name__}: {raised}"[:200])
        ended = clock()
        seconds = ended - began
        window = None if last is None else ended - last
        yield Pass(number, woken, tuple(findings), seconds, window, error)
        last = began if error is None else last
        time.sleep(MIN_PAUSE_SECONDS if passes is None or number < passes else 0)
        woken = rung.wait(max(0.0, every - (clock() - began))) if passes is None or number < passes else False


@contextmanager
def listening(bell: Doorbell, host: str, port: int) -> Iterator[int]:
    """Serve `bell` over HTTP for the length of a ``with``; gives the port."""
    handler = type("Handler", (_Handler,), {"bell": bell})
    try:
        server = ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        raise Misuse("cannot listen for webhooks", got=f"{host}:{port}: {error}", expected="a free port") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="mlseal webhooks", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """POST rings; everything else is 405."""

    bell: Doorbell
    timeout = 10

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length") or ""
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY:
            self._say(413 if length else 411)
            return
        try:
            self.bell.deliver(dict(self.headers), self.rfile.read(int(length)))
        except Refusal as error:
            self._say(error.http_status, f"{error}\n".encode())
        else:
            self._say(204)

    def _say(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing: strangers would fill the log."""
