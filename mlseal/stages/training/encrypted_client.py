"""The client of encrypted scoring: it holds the rows and the secret key, and starts the server as another process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import Error, Refusal, Unchecked
from mlseal.stages import process
from mlseal.stages.training import wire

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SERVER = Path(__file__).with_name("encrypted_server.py")
_POLL = 0.2


@dataclass(frozen=True)
class Parameters:
    """CKKS: degree of the polynomial modulus, bits of each prime of the coefficient modulus, bits of the scale."""

    degree: int
    bits: tuple[int, ...]
    scale: int

    @property
    def slots(self) -> int:
        """Numbers in one ciphertext."""
        return self.degree // 2


@dataclass
class Client:
    """One session with one server. Make with `session`.

    Attributes:
        public_sha256: of the context that the server received.
        sent: bytes of ciphertext sent.
    """

    context: Any
    peer: socket.socket
    slots: int
    public_sha256: str = ""
    sent: int = field(default=0)

    def open(self) -> None:
        """Send the public context. Raises `Refusal` when the server finds a secret key in it."""
        public = self.context.serialize(save_secret_key=False, save_galois_keys=False, save_relin_keys=False)
        self.public_sha256 = hashlib.sha256(public).hexdigest()
        wire.send(self.peer, public)
        said = json.loads(wire.receive(self.peer))
        if said != {"sha256": self.public_sha256, "secretKey": False}:
            raise Refusal(
                "the server does not hold just the public context",
                got=json.dumps(said)[:200],
                expected="the bytes that were sent, without a secret key",
            )

    def score(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits of `rows` (at most `slots`, features), computed on ciphertexts. Raises `Refusal` if it could read."""
        import numpy as np
        import tenseal

        wire.send(self.peer, str(len(rows)).encode())
        for column in rows.T:
            ciphertext = tenseal.ckks_vector(self.context, column.tolist()).serialize()
            self.sent += len(ciphertext)
            wire.send(self.peer, ciphertext)
        if json.loads(wire.receive(self.peer)) != {"decrypted": False}:
            raise Refusal("the server could decrypt what it was sent", expected="ciphertexts that it cannot read")
        answer = tenseal.ckks_vector_from(self.context, wire.receive(self.peer))
        return np.asarray(answer.decrypt(), dtype=np.float64)[: len(rows)]

    def all(self, rows: NDArray[np.float64], progress: Callable[[int], None]) -> NDArray[np.float64]:
        """Logits of any number of rows, batch by batch."""
        import numpy as np

        parts = []
        for start in range(0, len(rows), self.slots):
            parts.append(self.score(rows[start : start + self.slots]))
            progress(min(start + self.slots, len(rows)))
        return np.concatenate(parts)


def timed(work: Callable[[], NDArray[np.float64]]) -> tuple[NDArray[np.float64], float]:
    """What `work` gives, and the seconds that it took."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


@contextlib.contextmanager
def session(
    parameters: Parameters, model: Path, home: Path, timeout: float, log: Callable[[str], None]
) -> Iterator[Client]:
    """A server on the model in a process of its own, and a client with a fresh key.

    Args:
        parameters: checked by the caller.
        model: directory of plain numbers.
        home: an existing private directory for the socket and the server's home.
        timeout: seconds until the server is killed.
        log: takes the server's lines.

    Raises `Unchecked` when the server does not come, ends early or is stopped.
    """
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, parameters.degree, -1, list(parameters.bits))
    context.global_scale = 2**parameters.scale
    place = home / "s"
    ended: list[Error | None] = []
    program = process.Program(SERVER, ["--socket", str(place), "--model", str(model)], home / "server", timeout)

    def run() -> None:
        try:
            process.run(program, log)
            ended.append(None)
        except Error as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    with socket.socket(socket.AF_UNIX) as listener:
        with wire.address(place) as near:
            listener.bind(near)
        listener.listen(1)
        listener.settimeout(_POLL)
        thread.start()
        peer = _accepted(listener, thread, ended)
    try:
        with peer:
            peer.settimeout(timeout)
            client = Client(context, peer, parameters.slots)
            client.open()
            yield client
            wire.send(peer, b"")
    except OSError as error:
        thread.join(timeout=5)
        raise _gone(ended, error) from error
    finally:
        thread.join(timeout=timeout)


def _accepted(listener: socket.socket, thread: threading.Thread, ended: list[Error | None]) -> socket.socket:
    while thread.is_alive():
        with contextlib.suppress(TimeoutError):
            peer, _ = listener.accept()
            return peer
    raise _gone(ended, None)


def _gone(ended: list[Error | None], error: Exception | None) -> Error:
    said = next((one for one in ended if one is not None), None)
    return said or Unchecked("the server of encrypted scoring is gone", got=str(error) if error else "no connection")
