"""skops files, which MLflow writes unless told otherwise: ordinary models pass, whatever asks for more does not."""

import io
import json
import os
import pickle
import zipfile

import mlflow.sklearn
import numpy as np
import pytest
import scipy.sparse
import skops.io
import yaml
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from mlseal.stages.testing import formats
from mlseal.stages.testing.opcodes import Unsafe
from tests.unit.stages.test_model_file import LABEL, ORDINARY, TABLE

ROWS = TABLE[["age", "visits"]].to_numpy()
MORE = {
    "neighbours": lambda: KNeighborsClassifier(algorithm="kd_tree").fit(ROWS, LABEL),
    "losses": lambda: SGDClassifier(loss="modified_huber", random_state=0).fit(ROWS, LABEL),
    "network": lambda: MLPClassifier(3, max_iter=3, random_state=0).fit(ROWS, LABEL),
    "texts": lambda: make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(["a good day", "a bad night"], [1, 0]),
    "names": lambda: LogisticRegression().fit(TABLE[["age", "visits"]], np.where(LABEL, "ill", "well")),
    "data": lambda: {
        "sparse": scipy.sparse.eye_array(3, format="csr"),
        "masked": np.ma.MaskedArray([1.0, 2.0], [True, False]),
        "generator": np.random.default_rng(1),
        "bytes": [b"x", bytearray(b"y"), slice(1, 2), {3: "three"}, np.float64(0.5), np.dtype("int16")],
    },
}


def node(kind, module, name, number=1, **more):
    return {"__loader__": kind, "__module__": module, "__class__": name, "__id__": number, **more}


def literal(value, number):
    return node("JsonNode", "builtins", "str", number, content=json.dumps(value), is_json=True)


def listed(*items, number=50, kind="ListNode", name="list"):
    return node(kind, "builtins", name, number, content=list(items))


def mapping(content, number=60, **more):
    kinds = [node("TypeNode", "builtins", "str", 70 + n) for n, _ in enumerate(content)]
    return node("DictNode", "builtins", "dict", number, content=content, key_types=listed(*kinds, number=69)) | more


def written(schema, protocol=2, files=()):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, raw in dict(files).items():
            archive.writestr(name, raw)
        text = schema if isinstance(schema, str) else json.dumps({**schema, "protocol": protocol})
        archive.writestr("schema.json", text)
    return stream.getvalue()


def check(raw, tmp_path, flavour="sklearn"):
    path = tmp_path / "file"
    path.write_bytes(raw)
    return formats.check(path, "model.skops", flavour, tmp_path / "expanded")


@pytest.mark.parametrize("name", [*ORDINARY, *MORE])
def test_ordinary_models_pass(tmp_path, name):
    model = {**ORDINARY, **MORE}[name]()
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        used = check(skops.io.dumps(model, compression=compression), tmp_path).used
        assert name == "data" or any(one.startswith("sklearn.") for one in used)


def shell(marker):
    """What calls a shell, as a reader with MLflow's answers takes it."""
    args = listed(literal(f"touch {marker}", 2), kind="TupleNode", name="tuple")
    return written(node("ConstructorFromReduceNode", os.name, "system", content=args))


def test_the_attack_works_and_does_not_pass(tmp_path):
    """The list of trusted types that MLflow hands on is read from the model."""
    raw = shell(tmp_path / "ran")
    with pytest.raises(Unsafe, match=f"{os.name}.system is called"):
        check(raw, tmp_path)
    assert not (tmp_path / "ran").exists()
    skops.io.loads(raw, trusted=[f"{os.name}.system"])
    assert (tmp_path / "ran").exists()


METHOD = node("MethodNode", "builtins", "list", content={"func": "append", "obj": listed()})
PARTIAL = {"args": listed(kind="TupleNode", name="tuple"), "kwds": mapping({}, 3), "namespace": literal(None, 4)}
BITS = mapping({"bit_generator": literal("set_bit_generator", 2)}, 5)
TWICE = listed(node("FunctionNode", "numpy", "log", 2), node("FunctionNode", "numpy", "exp", 2))
HIDDEN = [mapping({"file": literal(n, 10 + n)}, 5, key_types=listed(number=9)) for n in (1, 2)]


def reduced(module, name, args, state, number, kind="LossNode"):
    return node(kind, module, name, number, __reduce__={"args": args}, content=state)


def tupled(number, *items):
    return listed(*items, number=number, kind="TupleNode", name="tuple")


OBJECTS = reduced(
    "numpy",
    "dtype",
    tupled(10, literal("O8", 11), literal(False, 12), literal(True, 13)),
    tupled(20, *(literal(value, 21 + n) for n, value in enumerate((3, "|", None, None, None, -1, -1, 0x38)))),
    2,
)
"""A type of objects that says it holds none: its eight bytes become an address."""
ADDRESS = reduced(
    "numpy._core.multiarray",
    "_reconstruct",
    tupled(30, node("TypeNode", "numpy", "ndarray", 31), tupled(32, literal(0, 33)), literal("b", 34)),
    tupled(
        40,
        literal(1, 41),
        tupled(42, literal(1, 43)),
        OBJECTS,
        literal(False, 44),
        node("BytesNode", "builtins", "bytes", 45, file="a.bin"),
    ),
    1,
)
PLANTED = {
    "an address for an object": (ADDRESS, "numpy._core.multiarray._reconstruct stands in a LossNode"),
    "a type that lies": (OBJECTS, "numpy.dtype stands in a LossNode"),
    "a partial for a loss": (
        reduced(
            "functools",
            "partial",
            tupled(2, node("FunctionNode", "sklearn.utils.validation", "check_array", 3)),
            mapping({}),
            1,
        ),
        "functools.partial stands in a LossNode",
    ),
    "an array that is called": (
        node("ConstructorFromReduceNode", "numpy._core.numeric", "_frombuffer", content=tupled(2)),
        "_frombuffer is called",
    ),
    "a module that is imported": (
        node("RandomStateNode", "numpy.random._examples.cffi.extending", "RandomState", content=literal(1, 2)),
        "extending.RandomState is called",
    ),
    "a function": (node("FunctionNode", "builtins", "eval"), "builtins.eval is not on the list"),
    "a type": (node("TypeNode", "subprocess", "Popen"), "subprocess.Popen is not on the list"),
    "an object": (node("ObjectNode", "mlflow.pyfunc", "PythonModel"), "not on the list"),
    "an object that is called": (node("ObjectNode", "datetime", "date"), "an instance of datetime.date is made"),
    "a class that is called": (
        node(
            "ConstructorFromReduceNode", "sklearn.pipeline", "Pipeline", content=listed(kind="TupleNode", name="tuple")
        ),
        "sklearn.pipeline.Pipeline is called",
    ),
    "a call with what is no tuple": (
        node("ConstructorFromReduceNode", "datetime", "date", content=listed()),
        "no tuple",
    ),
    "a method": (METHOD, "has a MethodNode"),
    "an operator": (node("OperatorFuncNode", "operator", "methodcaller", attrs=listed()), "has a OperatorFuncNode"),
    "a kind of another package": (node("QuantileForestNode", "a", "b"), "has a QuantileForestNode"),
    "a partial": (
        node(
            "PartialNode", "functools", "partial", content={"func": node("FunctionNode", "numpy", "log", 2), **PARTIAL}
        ),
        "another function",
    ),
    "a list of another type": (node("ListNode", "os", "system", content=[]), "os.system is called"),
    "a dict of another type": (mapping({}, __module__="os", __class__="system"), "os.system is called"),
    "a key of another type": (
        mapping({"x": literal(1, 2)}, key_types=listed(node("TypeNode", "sklearn.pipeline", "Pipeline", 3))),
        "Pipeline is called with a key",
    ),
    "a factory": (
        node(
            "DefaultDictNode",
            "collections",
            "defaultdict",
            content={"main": mapping({}), "default_factory": node("TypeNode", "sklearn.pipeline", "Pipeline", 3)},
        ),
        "Pipeline is called",
    ),
    "a scalar of another type": (
        node("NdArrayNode", "numpy", "load", type="numpy", file="a.npy"),
        "numpy.load is called",
    ),
    "a tree of another class": (
        node("TreeNode", "sklearn.pipeline", "Pipeline", __reduce__={"args": listed()}, content=mapping({})),
        "Pipeline stands in a TreeNode",
    ),
    "a loss that is none": (
        node(
            "LossNode", "os", "system", __reduce__={"args": listed(kind="TupleNode", name="tuple")}, content=mapping({})
        ),
        "os.system stands in a LossNode",
    ),
    "a generator": (
        node(
            "RandomGeneratorNode",
            "numpy.random._generator",
            "Generator",
            content={"bit_generator": BITS, "seed_seq": BITS},
        ),
        "none of NumPy's",
    ),
    "a random state": (node("RandomStateNode", "os", "system", content=mapping({})), "os.system is called"),
    "a masked array": (node("MaskedArrayNode", "os", "system", content={}), "no masked array"),
    "a dtype": (node("DTypeNode", "os", "system", content={}), "no type of NumPy"),
    "a slice": (node("SliceNode", "builtins", "slice", content={"start": "a", "stop": None, "step": None}), "is none"),
    "bytes of another type": (node("BytesNode", "os", "system", file="a.bin"), "no type of bytes"),
    "one id for two": (TWICE, "one id and differ"),
    "one id for two, under a key of that name": (listed(*HIDDEN), "one id and differ"),
    "an id of its own parent": (listed(listed(literal(1, 2))), "stands in for one"),
    "no id": ({**literal(1, 2), "__id__": None}, "no id"),
    "an id that is true": ({**literal(1, 2), "__id__": True}, "no id"),
    "no type": ({**literal(1, 2), "__module__": 3}, "no type"),
    "a file that is not there": (node("NdArrayNode", "numpy", "ndarray", type="numpy", file="a.npy"), "lacks a.npy"),
    "no kind": ({"__id__": 1}, "not one of skops"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_does_not_pass(tmp_path, name):
    schema, reason = PLANTED[name]
    with pytest.raises(Unsafe, match=reason):
        check(written(schema), tmp_path)


def objects():
    stream = io.BytesIO()
    np.save(stream, np.array([print], dtype=object), allow_pickle=True)
    return stream.getvalue()


ARRAY = node("NdArrayNode", "numpy", "ndarray", type="numpy", file="a.npy")
SPARSE = node("SparseMatrixNode", "scipy.sparse._csr", "csr_array", type="scipy", file="a.npz")
BROKEN = {
    "another protocol": (written(literal(1, 1), protocol=1), "protocol is 1"),
    "a protocol that is true": (written(literal(1, 1), protocol=True), "protocol is True"),
    "a file that nothing names": (written(literal(1, 1), files={"a.bin": b"x"}), "holds a.bin"),
    "an array of objects": (written(ARRAY, files={"a.npy": objects()}), "print"),
    "a pickle in a sparse matrix": (
        written(SPARSE, files={"a.npz": written("{}", files={"a.pkl": pickle.dumps(print)})}),
        "no array",
    ),
    "what is no sparse matrix": (written(SPARSE, files={"a.npz": b"x"}), "no whole zip"),
    "a key twice": (written('{"protocol": 2, "protocol": 2}'), "not one of skops"),
    "what is no JSON": (written("{"), "not one of skops"),
    "a list": (written("[]"), "not one of skops"),
    "no end of depth": (written('{"protocol":2,"a":' * 100_000), "not one of skops"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_does_not_pass(tmp_path, name):
    raw, reason = BROKEN[name]
    with pytest.raises(Unsafe, match=reason):
        check(raw, tmp_path)


def test_a_tree_as_deep_as_the_reader_can_go_is_an_answer(tmp_path):
    schema = literal(1, 1)
    for number in range(2, 400):
        schema = listed(schema, number=number)
    with pytest.raises(Unsafe, match="not one of skops"):
        check(written(schema), tmp_path)


def test_another_flavour_has_another_list(tmp_path):
    with pytest.raises(Unsafe, match="not on the list of plain"):
        check(skops.io.dumps(LogisticRegression().fit(ROWS, LABEL)), tmp_path, "plain")


def test_a_tree_passes_once_its_author_trusts_it(perform, tmp_path):
    """skops 0.16 asks about trees: one that was made to, reads outside of its memory. So does one in a pickle."""
    tree, model = DecisionTreeClassifier(max_depth=2).fit(ROWS, LABEL), tmp_path / "model"
    mlflow.sklearn.save_model(tree, model, skops_trusted_types=["sklearn.tree._tree.Tree"])
    made = perform("testing.model_file", model=model, report=tmp_path / "a.sarif", second_opinions="").predicate
    assert made["passedTests"] == ["allow-list"]


def test_a_model_as_mlflow_writes_it(perform, tmp_path):
    model = tmp_path / "model"
    mlflow.sklearn.save_model(LogisticRegression().fit(ROWS, LABEL), model)
    assert (model / "model.skops").is_file(), "MLflow's default is another format now"
    made = perform(
        "testing.model_file", model=model, report=tmp_path / "a.sarif", second_opinions="picklescan"
    ).predicate
    assert (made["result"], made["passedTests"]) == ("PASSED", ["allow-list", "picklescan"])
    said = yaml.safe_load((model / "MLmodel").read_text())
    said["flavors"]["sklearn"]["skops_trusted_types"] = [f"{os.name}.system"]
    (model / "MLmodel").write_text(yaml.safe_dump(said))
    (model / "model.skops").write_bytes(shell(tmp_path / "ran"))
    made = perform(
        "testing.model_file", model=model, report=tmp_path / "b.sarif", second_opinions="picklescan"
    ).predicate
    assert made["failedTests"] == ["allow-list"]
    assert not (tmp_path / "ran").exists()
