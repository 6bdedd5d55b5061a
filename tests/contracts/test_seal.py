"""Only the verifier makes a `VerifiedStatement`: no other module of ours names its seal, calls it or goes around."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKER = ROOT / "mlseal" / "evidence" / "verifying.py"
PACKAGES = ("mlseal", "kfp_components", "mlflow_plugins", "dvc_hooks", "examples", "benchmarks")


def makers(source: str) -> list[int]:
    """Lines of `source` that could make a VerifiedStatement."""
    found = []
    for node in ast.walk(ast.parse(source)):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name in ("_SEAL", "__new__") or (
            isinstance(node, ast.Constant) and node.value in ("_SEAL", "seal", "__new__")
        ):
            found.append(node.lineno)
        elif isinstance(node, ast.Call):
            called = node.func
            name = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            if name == "VerifiedStatement":
                found.append(node.lineno)
        elif isinstance(node, ast.ClassDef) and any(ast.unparse(b).endswith("VerifiedStatement") for b in node.bases):
            found.append(node.lineno)
    return found


def test_only_the_verifier_makes_a_verified_statement():
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py") if file != MAKER]
    assert len(files) > 100
    assert {str(file.relative_to(ROOT)): lines for file in files if (lines := makers(file.read_text()))} == {}
    assert makers(MAKER.read_text())


@pytest.mark.parametrize(
    "way",
    [
        "VerifiedStatement(statement=s, seal=None)",
        "verifying.VerifiedStatement(s)",
        "verifying._SEAL",
        "getattr(verifying, '_SEAL')",
        "object.__new__(VerifiedStatement)",
        "class Other(verifying.VerifiedStatement): pass",
    ],
)
def test_each_way_around_is_found(way):
    assert makers(way)


def test_using_one_is_no_making():
    assert makers("def judge(fact: VerifiedStatement) -> bool:\n    return isinstance(fact, VerifiedStatement)") == []
