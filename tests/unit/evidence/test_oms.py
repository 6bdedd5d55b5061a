"""OMS signatures of ours, judged by OpenSSF's own program."""

import pytest

from tests.stock import Rejected, model_signing


@pytest.fixture
def model(tmp_path):
    root = tmp_path / "model"
    (root / "a").mkdir(parents=True)
    (root / "a-b").mkdir()
    (root / "weights.bin").write_bytes(b"w" * 3000)
    (root / "a" / "x").write_bytes(b"1")
    (root / "a-b" / "x").write_bytes(b"2")
    return root


@pytest.fixture
def signature(authority, model, tmp_path):
    done = authority.call(
        "sign",
        str(model),
        "--type",
        "oms-signature",
        "-o",
        str(tmp_path / "model.sig"),
        "--store",
        str(authority.store.root),
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "model.sig"


def stock(authority, model, signature):
    return model_signing(model, signature, authority.trust_config, authority.san("producer"), authority.issuer)


def test_stock_model_signing_accepts_it_and_so_do_we(authority, model, signature):
    assert stock(authority, model, signature).san == authority.san("producer")
    ours = authority.call(
        "verify",
        str(signature),
        "--subject",
        str(model),
        "--identity",
        authority.san("producer"),
        "--issuer",
        authority.issuer,
    )
    assert ours.returncode == 0, ours.stderr


@pytest.mark.parametrize("change", ["edit", "add", "rename", "remove"])
def test_both_notice(authority, model, signature, change):
    if change == "edit":
        (model / "weights.bin").write_bytes(b"v" * 3000)
    elif change == "add":
        (model / "evil.py").write_bytes(b"x")
    elif change == "rename":
        (model / "weights.bin").rename(model / "weights.bin2")
    else:
        (model / "a" / "x").unlink()
    with pytest.raises(Rejected):
        stock(authority, model, signature)
    ours = authority.call(
        "verify",
        str(signature),
        "--subject",
        str(model),
        "--identity",
        authority.san("producer"),
        "--issuer",
        authority.issuer,
    )
    assert ours.returncode == 10, ours.stdout
