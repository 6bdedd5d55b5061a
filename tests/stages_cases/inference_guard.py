"""`inference.guard`: two small servers on loopback, one of which refuses what shouts. The real guard: tests/adapters/guard."""

import http.server
import json
import threading

from mlseal.errors import DigestMismatch, Misuse, Unchecked, Unreadable
from mlseal.evidence.digest import measure
from tests.stages_cases import Bad, Case, World


def serve(posture):
    """The URL of a server that answers; with a `posture`, only what does not shout."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self._say(200, posture)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            shouts = posture is not None and b"!!!" in body
            self._say(403 if shouts else 200, {"predictions": [1]})

        def _say(self, status, value):
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def make(world: World):
    model, requests = world.path("model.bin"), world.path("requests.jsonl")
    model.write_bytes(b"weights " + world.canary.encode())
    lines = [{"kind": "ordinary", "body": {"instances": [{"note": f"{world.canary} {i}"}]}} for i in range(20)]
    lines += [{"kind": "shouting", "body": {"instances": [{"note": f"{world.canary} {i}!!!"}]}} for i in range(10)]
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    posture = {
        "guard": "desk/1",
        "settings": {"sha256": "0" * 64},
        "model": {"sha256": measure(model).sha256, "bound": True},
    }
    return {"model": model, "requests": requests, "guard_url": serve(posture), "upstream_url": serve(None)}


def written(data):
    def spoil(world, arguments):
        arguments["requests"].write_bytes(data)

    return spoil


def another(_, arguments):
    arguments["model"].write_bytes(b"other weights")


def only_attacks(_, arguments):
    lines = [line for line in arguments["requests"].read_text().splitlines() if "ordinary" not in line]
    arguments["requests"].write_text("\n".join(lines) + "\n")


def loud(_, arguments):
    text = arguments["requests"].read_text()
    arguments["requests"].write_text("".join(line.replace('"}]', '!!!"}]') + "\n" for line in text.splitlines()))


CASE = Case(
    make=make,
    bad={
        "empty": Bad(written(b""), Unreadable, "empty"),
        "nan": Bad(written(b'{"kind": "ordinary", "body": NaN}\n'), Misuse, "line 1"),
        "wrong shape": Bad(written(b'{"kind": "ordinary"}\n'), Misuse, "line 1"),
        "missing column": "requests have members, not columns: see wrong shape",
        "wrong type": Bad(written(b"\x89PNG\r\n\x1a\n"), Misuse, "line 1"),
        "only attacks": Bad(only_attacks, Misuse, "measure nothing"),
        "nothing answered": Bad(loud, Unchecked, "no ordinary request was answered"),
        "another model": Bad(another, DigestMismatch, "another model"),
    },
    varies=("latency",),
)
