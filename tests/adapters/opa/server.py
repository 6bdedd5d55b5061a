"""OPA's Data API as its documentation describes it, around OPA's own engine: ``python server.py --rego FILE …``.

Ours is the HTTP, OPA's the evaluation. After openpolicyagent.org/docs/rest-api (Data API, Provenance, Authentication,
Errors): POST /v1/data/PATH with ``{"input": …}``; 200 without ``result`` where the decision is undefined; 400 for a body
that is no JSON; 500 for an error in a rule; 401 without the token; 405 for another method; ``provenance`` where it is
asked for, ``decision_id`` since decisions are logged (``--log``). The library treats every error of a built-in as fatal, so a
question without ``strict-builtin-errors`` is refused rather than answered in another way than OPA would.

Prints its URL once it listens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import ssl
import sys
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from opa_bindings import OpaEngine, OpaError

UNDEFINED = object()


class Opa:
    """Modules, the revision they are of, and the log of decisions."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.engine = OpaEngine()
        for file in arguments.rego:
            self.engine.add_policy(file.name, file.read_text())
        self.bundles = {name: {"revision": text} for name, _, text in (b.partition("=") for b in arguments.bundle)}
        self.token, self.log = arguments.token, arguments.log

    def decide(self, segments: list[str], shown: Any) -> tuple[str, object]:
        """The id of a decision and its value. Raises `OpaError`."""
        reference = "data" + "".join(f"[{json.dumps(segment)}]" for segment in segments)
        found = self.engine.eval_query(f"x := {reference}", shown)
        value = found[0]["x"] if found else UNDEFINED
        number = str(uuid.uuid4())
        if self.log is not None:
            said = {"decision_id": number, "path": "/".join(segments), "input": shown}
            with self.log.open("a") as file:
                file.write(json.dumps(said) + "\n")
        return number, value


class Handler(BaseHTTPRequestHandler):
    """One question."""

    protocol_version = "HTTP/1.1"
    opa: Opa

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self.fail(405, "method_not_allowed", "method not allowed")

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.opa.token and self.headers.get("Authorization") != f"Bearer {self.opa.token}":
            return self.fail(401, "unauthorized", "request rejected by administrative policy")
        if not parts.path.startswith("/v1/data/"):
            return self.fail(404, "resource_not_found", "no such path")
        wishes = parse_qs(parts.query)
        if wishes.get("strict-builtin-errors") != ["true"]:
            return self.fail(400, "invalid_parameter", "this server evaluates strictly only")
        try:
            shown = json.loads(body)["input"]
        except (ValueError, KeyError, TypeError):
            return self.fail(400, "invalid_parameter", "body contains malformed input document")
        try:
            number, value = self.opa.decide(parts.path.removeprefix("/v1/data/").split("/"), shown)
        except OpaError as error:
            return self.fail(500, "internal_error", str(error))
        answer: dict[str, object] = {"decision_id": number}
        if value is not UNDEFINED:
            answer["result"] = value
        if wishes.get("provenance") == ["true"]:
            bundles = {"bundles": self.opa.bundles} if self.opa.bundles else {}
            answer["provenance"] = {"version": "1.20.2", "build_commit": "", "build_timestamp": "", **bundles}
        return self.reply(200, answer)

    def fail(self, status: int, code: str, message: str) -> None:
        self.reply(status, {"code": code, "message": message})

    def reply(self, status: int, value: object) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        with contextlib.suppress(ConnectionError):  # who asked may have given up
            self.end_headers()
            self.wfile.write(raw)


def main() -> None:
    """Serve on a free port of this machine until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rego", type=Path, action="append", required=True)
    parser.add_argument("--bundle", action="append", default=[], metavar="NAME=REVISION")
    parser.add_argument("--token")
    parser.add_argument("--certificate", type=Path, help="PEM with certificate and key")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    Handler.opa = Opa(arguments)
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    if arguments.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "https" if arguments.certificate else "http"
    sys.stdout.write(f"{scheme}://127.0.0.1:{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
