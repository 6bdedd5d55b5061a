"""``mlseal dvc gateway``: run the admission gateway in front of a remote's store."""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import logging
import signal
import socket
import ssl
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from mlseal.errors import Misuse
from mlseal_dvc import session
from mlseal_dvc.options import who

if TYPE_CHECKING:
    from mlseal.evidence.trust import Trust
    from mlseal_dvc.gateway_access import Callers

_GIB = 1 << 30
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where DVC's clients connect to; port 0 for any.")
@click.option("--upstream", required=True, help="The store: http(s)://…, s3://bucket/prefix or a directory.")
@click.option("--endpoint-url", help="Address of an S3 service other than Amazon's.")
@click.option("--cert", type=click.Path(exists=True, dir_okay=False), help="TLS certificate chain, PEM.")
@click.option("--key", type=click.Path(exists=True, dir_okay=False), help="Its private key, PEM.")
@click.option("--plain-http", is_flag=True, help="Serve other hosts without TLS: only behind a proxy that does TLS.")
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="Directory for bodies and quarantine.")
@click.option("--max-object", type=click.IntRange(min=1), default=64, show_default=True, help="Largest object, in GiB.")
@click.option(
    "--quarantine", type=click.IntRange(min=0), default=1, show_default=True, help="Room for refused, in GiB."
)
@click.option("--access", type=_FILE, help="YAML file: who may read and who may write.")
@click.option("--anonymous", is_flag=True, help="Ask nobody who they are: whoever connects may read and send.")
@click.option(
    "--external-issuer", "issuers", type=_FILE, help="JSON file of identity providers, as for 'mlseal serve'."
)
@click.option(
    "--session",
    "session_minutes",
    type=click.IntRange(min=0, max=1440),
    default=0,
    show_default=True,
    help="Minutes for which a token counts once it was shown, although it ended meanwhile.",
)
@click.option("--s3-bucket", metavar="NAME", help="Serve S3 clients too, as this bucket.")
@click.option("--s3-keys", type=_FILE, help="JSON file (0600) of access keys and whom they belong to.")
@click.option("--renew", is_flag=True, help="A newer bundle by the same signer may replace an older one.")
@click.option("--verify-reads", is_flag=True, help="Hand out objects only after comparing them with evidence.")
@who
def gateway(
    listen: str,
    upstream: str,
    endpoint_url: str | None,
    cert: str | None,
    key: str | None,
    plain_http: bool,
    state: Path | None,
    max_object: int,
    quarantine: int,
    access: Path | None,
    anonymous: bool,
    issuers: Path | None,
    session_minutes: int,
    s3_bucket: str | None,
    s3_keys: Path | None,
    renew: bool,
    verify_reads: bool,
) -> None:
    """Admit into a remote only what verified evidence lists, whatever client sends it.

    The gateway takes DVC's HTTP remote: 'dvc remote add -d team https://HOST:PORT'; with --s3-bucket also its S3
    remote. Only the gateway may write the store behind it.

    Example: mlseal dvc gateway --listen 0.0.0.0:8443 --cert c.pem --key k.pem --upstream s3://b/team --access who.yaml
    """
    from mlseal.evidence import paths
    from mlseal.evidence import trust as trust_roots
    from mlseal_dvc.gateway import open_gateway
    from mlseal_dvc.gateway_admission import Admission
    from mlseal_dvc.gateway_http import GatewayServer
    from mlseal_dvc.gateway_ledger import Ledger
    from mlseal_dvc.gateway_spool import Limits
    from mlseal_dvc.gateway_upstream import open_upstream

    tls = _tls(cert, key)
    host, port = _address(listen, tls is not None or plain_http)
    store = open_upstream(upstream, endpoint_url)
    _require_fitting(anonymous, access, issuers, s3_bucket, s3_keys)
    own = state or paths.state_dir() / "dvc" / "gateway" / hashlib.sha256(str(store).encode()).hexdigest()[:32]
    with ExitStack() as stack:
        stack.enter_context(_locked(paths.private(own)))
        ledger = stack.enter_context(closing(Ledger(own / "ledger.db")))
        current = session.current()
        admission = Admission(trust_roots.resolve(current.trust), current, store, ledger)
        admission.require_signers()
        callers = None if anonymous else _callers(admission.trust, access, issuers, s3_keys, own, session_minutes)
        limits = Limits(body=max_object * _GIB, incoming=4 * max_object * _GIB, quarantine=quarantine * _GIB)
        served = open_gateway(store, admission, ledger, own, limits, renew=renew, verify_reads=verify_reads)
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        server = GatewayServer(listener, served, callers=callers, bucket=s3_bucket, tls=tls)
        stack.callback(server.server_close)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"{'https' if tls else 'http'}://{shown}:{listener.getsockname()[1]} in front of {store}")
        server.serve_forever()


def _require_fitting(
    anonymous: bool, access: Path | None, issuers: Path | None, bucket: str | None, keys: Path | None
) -> None:
    if anonymous and (access or issuers or keys):
        raise Misuse("either nobody is asked or somebody is", expected="--anonymous alone, or --access FILE")
    if not anonymous and access is None:
        raise Misuse(
            "nobody says who may read and write through the gateway",
            expected="--access FILE",
            remedy="to let everybody in who connects: --anonymous",
        )
    if keys is not None and bucket is None:
        raise Misuse("S3 keys are for S3 clients", expected="--s3-bucket NAME with --s3-keys")
    if bucket is not None and keys is None and not anonymous:
        raise Misuse("S3 clients show who they are with access keys", expected="--s3-keys FILE with --s3-bucket")


def _callers(
    trust: Trust, access: Path | None, issuers: Path | None, keys: Path | None, state: Path, minutes: int
) -> Callers:
    from mlseal_dvc.gateway_access import Callers, load_access, load_keys, verifier_for
    from mlseal_dvc.gateway_sigv4 import require_signer

    assert access is not None  # `_require_fitting`
    if keys is not None:
        require_signer()
    tokens, known = verifier_for(trust, issuers, state), load_keys(keys) if keys else {}
    if tokens is None and not known:
        raise Misuse(
            "nobody could show who they are",
            expected="--trust with the services of an authority (trust_config.json), --external-issuer or --s3-keys",
        )
    return Callers(load_access(access), tokens, known, session=60.0 * minutes)


def _tls(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    if (cert is None) != (key is None):
        raise Misuse("TLS needs two files", expected="--cert together with --key")
    if cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (ssl.SSLError, OSError) as error:
        raise Misuse("certificate and key do not fit", got=str(error), expected="two PEM files") from error
    return context


def _address(listen: str, protected: bool) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host or not (port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise Misuse("not an address to listen at", got=listen, expected="HOST:PORT")
    if not protected and not _loopback(host):
        raise Misuse(
            "other hosts are served with TLS only",
            got=listen,
            expected="--cert and --key, or a loopback address",
            remedy="behind a proxy that does TLS: --plain-http",
        )
    return host, int(port)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _locked(state: Path) -> IO[str]:
    lock = (state / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise Misuse(
            "another gateway uses this state directory", got=state, remedy="give each its own --state"
        ) from error
    return lock
