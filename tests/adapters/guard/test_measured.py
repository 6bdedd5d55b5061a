"""Only what a step stopped counts as stopped: a token that ended or a guard that closed would make a guard look strict."""

import http.server
import json
import threading

import httpx
import pytest
from starlette.responses import JSONResponse

from mlseal.errors import Refusal, Unchecked
from mlseal.services.guard.app import Fault, Suspicious
from mlseal.services.guard.callers import Unidentified
from mlseal.services.guard.standing import Closed, Undecided
from mlseal.stages.inference import guard


@pytest.fixture
def answering():
    """A server that answers every request as the guard writes `error`, or with predictions for None."""
    said: dict = {}

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            error = said["error"]
            body = JSONResponse(error.to_dict()).body if error else json.dumps({"predictions": [1]}).encode()
            self.send_response(error.http_status if error else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def ask(error):
        said["error"] = error
        tally = guard._Tally()
        with httpx.Client(trust_env=False) as client:
            guard._send(client, f"http://127.0.0.1:{server.server_port}", "ordinary", b"{}", "t", tally)
        return tally

    yield ask
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_a_step_stopped_is_counted_and_an_answer_too(answering):
    assert answering(None).answered["ordinary"] == 1
    for error in (Suspicious("signs of injection"), Refusal("withheld")):
        assert answering(error).answered["ordinary"] == 0


@pytest.mark.parametrize("error", [Unidentified("no token"), Closed("no"), Undecided("unknown"), Fault("failed")])
def test_what_says_nothing_of_the_request_stops_the_measurement(answering, error):
    with pytest.raises(Unchecked, match="nothing was measured"):
        answering(error)
