"""The server of encrypted scoring: a process of its own that holds the model and never a secret key.

    python -I encrypted_server.py --socket PATH --model DIR

It is sent the public context, says what it makes of it, and stops if there is a secret key in it. Then, for each batch:
the number of rows, and for each feature one ciphertext with that feature of all rows; it answers with one ciphertext of
scores. An empty frame ends it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import sys
from pathlib import Path
from typing import Any

from mlseal.stages import dense
from mlseal.stages.training import wire


def serve(peer: socket.socket, model: dense.Dense) -> None:
    """Answer one client until it ends. Exits with a sentence when it is sent what it must not have."""
    import tenseal

    raw = wire.receive(peer)
    context = tenseal.context_from(raw)
    said: dict[str, Any] = {"sha256": hashlib.sha256(raw).hexdigest(), "secretKey": context.is_private()}
    wire.send(peer, json.dumps(said).encode())
    if context.is_private():
        sys.exit("the client sent its secret key; nothing was computed")
    weights, bias = model.layers[0].weight[0], float(model.layers[0].bias[0])
    while rows := wire.receive(peer):
        del rows
        scores: Any = None
        decrypted = False
        for weight in weights:
            column = tenseal.ckks_vector_from(context, wire.receive(peer))
            if scores is None:
                decrypted = _decrypts(column)
            part = column * float(weight)
            scores = part if scores is None else scores + part
        wire.send(peer, json.dumps({"decrypted": decrypted}).encode())
        wire.send(peer, (scores + bias).serialize())


def _decrypts(column: Any) -> bool:
    """Whether this process can read a ciphertext; it tries, since that is what must fail."""
    try:
        column.decrypt()
    except ValueError:
        return False
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Score ciphertexts with a linear model.")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    model = dense.read(options.model)
    with socket.socket(socket.AF_UNIX) as peer:
        with wire.address(options.socket) as near:
            peer.connect(near)
        serve(peer, model)


if __name__ == "__main__":
    main()
