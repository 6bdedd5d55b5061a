"""Model files are read opcode by opcode: ordinary ones of real libraries pass, planted ones do not, nothing is executed."""

import builtins
import collections
import functools
import hashlib
import io
import json
import operator
import os
import pickle
import struct
import subprocess
import zipfile

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from mlseal.errors import Misuse, NoEvidence, Revoked, Unreadable, UntrustedSigner
from mlseal.evidence import statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates import data_provenance
from mlseal.stages.testing import allowlist, formats, sklearn_classes
from mlseal.stages.testing.opcodes import Unsafe
from tests import sarif_schema
from tests.unit.stages.test_source import CLAIM, revoke

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame({"age": RNG.normal(40, 9, 90), "visits": RNG.poisson(3, 90), "plan": RNG.choice(["a", "b"], 90)})
LABEL = (TABLE.age + RNG.normal(0, 5, 90) > 40).astype(int)


def randhie():
    """A pipeline as the demo's: columns by name, a boosted classifier behind them."""
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), make_column_selector(dtype_include=np.number)), ("plan", OneHotEncoder(), ["plan"])],
        remainder="passthrough",
    )  # fmt: skip
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=4, random_state=0)).fit(TABLE, LABEL)


def forest():
    return RandomForestClassifier(4, random_state=np.random.RandomState(0)).fit(TABLE[["age", "visits"]], LABEL)


def categories():
    table = np.c_[TABLE.age, TABLE.visits > 3]
    return HistGradientBoostingClassifier(max_iter=3, categorical_features=[1]).fit(table, LABEL)


def searched():
    log = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression())
    return GridSearchCV(log, {"logisticregression__C": [0.1, 1]}, cv=2, scoring="roc_auc").fit(
        TABLE[["visits"]].to_numpy(), LABEL
    )


ORDINARY = {"randhie": randhie, "forest": forest, "searched": searched, "categories": categories}


@pytest.fixture(scope="module")
def fitted():
    return {name: make() for name, make in ORDINARY.items()}


def check(raw: bytes, tmp_path, name="model.pkl", flavour="sklearn"):
    path = tmp_path / "file"
    path.write_bytes(raw)
    return formats.check(path, name, flavour, tmp_path / "expanded")


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_scikit_learn_passes_in_every_protocol_and_wrapping(fitted, tmp_path, name):
    for protocol in range(6):
        used = check(pickle.dumps(fitted[name], protocol), tmp_path).used
        assert any(one.startswith("sklearn.") for one in used)
    check(cloudpickle.dumps(fitted[name]), tmp_path)
    for compress in (0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)):
        joblib.dump(fitted[name], tmp_path / "m", compress=compress)
        check((tmp_path / "m").read_bytes(), tmp_path)


def test_arrays_and_plain_data_pass(tmp_path):
    plain = {
        "a": [1, 2.5, None, True, 1 << 80],
        "b": (1, {2}, frozenset([3]), b"x", bytearray(b"y"), 1j, slice(1)),
        "c": collections.OrderedDict(x=1),
        "d": collections.defaultdict(list, {"k": [1]}),
    }
    arrays = [np.arange(5), np.array(["a", None], dtype=object), np.zeros(2, dtype=[("x", "f8"), ("y", "i4")]), np.float32(1),
              np.array(["2026-01-01"], dtype="datetime64[D]"), np.asfortranarray(np.ones((2, 3))), np.ma.array([1], mask=[1]),
              np.array("abc"), np.zeros(0)]  # fmt: skip
    for one in (plain, arrays):
        for protocol in range(6):
            check(pickle.dumps(one, protocol), tmp_path, flavour="plain")
        joblib.dump(one, tmp_path / "m")
        check((tmp_path / "m").read_bytes(), tmp_path, flavour="plain")
    np.save(tmp_path / "a.npy", arrays[1], allow_pickle=True)
    check((tmp_path / "a.npy").read_bytes(), tmp_path)
    np.savez(tmp_path / "a.npz", x=arrays[0], y=arrays[1])
    check((tmp_path / "a.npz").read_bytes(), tmp_path)


def checkpoint(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_checkpoints_of_torch_pass_and_a_module_saved_whole_does_not(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    moments = {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2, 3)}}  # as an optimizer's state is
    state = {"model": module.state_dict(), "optimizer": {"state": moments, "param_groups": [{"lr": 0.1}]}, "epoch": 3,
             "dtype": torch.bfloat16}  # fmt: skip
    for good in (module.state_dict(), state, torch.nn.Parameter(torch.zeros(2)), torch.zeros(2, dtype=torch.bool)):
        assert check(checkpoint(good), tmp_path, flavour="torch").flavour == "torch"
    with pytest.raises(Unsafe, match=r"torch\.nn\.modules.* not on the list"):
        check(checkpoint(module), tmp_path, flavour="torch")


# --- planted ----------------------------------------------------------------------------------------------------------


class Planted:
    """Pickles as a call of anything."""

    def __init__(self, called, *args):
        self.call = called, args

    def __reduce__(self):
        return self.call


MARK = "/tmp/never-made-by-a-test-of-model-files"  # nothing here is ever loaded
COMMAND = f"touch {MARK}"
CALLS = {
    "os.system": Planted(os.system, COMMAND),
    "subprocess": Planted(subprocess.Popen, ["touch", MARK]),
    "eval": Planted(eval, "1"),
    "exec": Planted(exec, "1"),
    "getattr": Planted(getattr, dict, "fromkeys"),
    "import": Planted(builtins.__import__, "os"),
    "numpy.load": Planted(np.load, MARK),
    "numpy.memmap": Planted(np.memmap, MARK),
    "joblib.load": Planted(joblib.load, MARK),
    "torch.hub": Planted(torch.hub.load, "a/b", "c"),
    "torch.load": Planted(torch.load, MARK),
    "partial": functools.partial(os.system, COMMAND),
    "methodcaller": operator.methodcaller("system", COMMAND),
    "attrgetter": operator.attrgetter("system"),
    "map": Planted(map, os.system, [COMMAND]),
    "pickle.loads": Planted(pickle.loads, b"x"),
    "cloudpickle function": cloudpickle.dumps(lambda x: os.system(x)),
    "function of sklearn": FunctionTransformer(func=os.system),
    "eval in a transformer": FunctionTransformer(func=eval),
    "fetch": Planted(__import__("sklearn.datasets", fromlist=["x"]).fetch_openml, "iris"),
    "joblib.Memory": joblib.Memory(None),
    "bound method": FunctionTransformer(func=LogisticRegression().fit),
    "type": Planted(type, "X", (), {}),
    "codec": Planted(__import__("codecs").encode, "x", "rot13"),
}


@pytest.mark.parametrize("name", CALLS)
def test_planted_calls_do_not_pass(tmp_path, name):
    planted = CALLS[name]
    for protocol in (0, 2, 4, 5):
        raw = planted if isinstance(planted, bytes) else pickle.dumps(planted, protocol)
        with pytest.raises(Unsafe):
            check(raw, tmp_path)
        with pytest.raises(Unsafe):
            check(pickle.dumps({"deep": [planted]}, protocol), tmp_path)
    joblib.dump([np.arange(3), planted], tmp_path / "m", compress=3)
    with pytest.raises(Unsafe):
        check((tmp_path / "m").read_bytes(), tmp_path)
    with pytest.raises(Unsafe):
        check(checkpoint({"weights": torch.zeros(1), "x": planted}), tmp_path, flavour="torch")
    assert not os.path.exists(MARK)


EMPTY = pickle.dumps([])
RANDOM = "numpy.random._pickle"
RAW = {
    "INST": b"(S'touch x'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch x'\no.",
    "protocol 0": b"cos\nsystem\n(S'touch x'\ntR.",
    "posix": b"\x80\x02cposix\nsystem\nX\x01\x00\x00\x00x\x85R.",
    "name of python 2": b"\x80\x02ccommands\ngetoutput\nX\x01\x00\x00\x00x\x85R.",
    "builtins of python 2": b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.",
    "dotted name": b"\x80\x04\x8c\x08builtins\x8c\x0fobject.__init__\x93.",
    "name with a blank": b"\x80\x02cos system\nx\n.",
    "computed name": b"\x80\x04\x8c\x02os\x8c\x06system\x85\x93.",
    "name from the memo": b"\x80\x04\x8c\x06system\x94\x8c\x02os\x94h\x01h\x00\x93\x8c\x01x\x85R.",
    "memo written twice": b"\x80\x04\x8c\x08builtins\x94\x8c\x02osq\x00h\x00\x8c\x06system\x93.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent id": b"\x80\x02X\x01\x00\x00\x00xQ.",
    "out of band": b"\x80\x05\x97.",
    "protocol in the middle": b"\x80\x02N0\x80\x04N.",
    "two pickles": EMPTY + EMPTY,
    "something behind": EMPTY + b"x",
    "nothing but a mark": b"\x80\x02(.",
    "rest on the stack": b"\x80\x02NN.",
    "cut off": pickle.dumps(list(range(100)))[:-20],
    "huge length": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.",
    "no opcode": b"\x80\x04\xff.",
    "frames that overlap": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x95\x02\x00\x00\x00\x00\x00\x00\x00N.",
    "frame over the end": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00N.",
    "state of a class": b"\x80\x02csklearn.pipeline\nPipeline\n}X\x01\x00\x00\x00xK\x01sb.",
    "state of a value": b"\x80\x02]}b.",
    "state twice": b"\x80\x02csklearn.pipeline\nPipeline\n)\x81}b}b.",
    "class that is called": b"\x80\x02csklearn.pipeline\nPipeline\n]\x85R.",
    "call of a call": b"\x80\x02ccollections\nOrderedDict\n)R)R.",
    "items of no container": b"\x80\x02csklearn.pipeline\nPipeline\n)\x81K\x01K\x02s.",
    "call that is handed on": b"\x80\x02]cnumpy._core.multiarray\n_reconstruct\na.",
    "constructor of the caller": f"\x80\x02c{RANDOM}\n__randomstate_ctor\nX\x01\x00\x00\x00xcsklearn.pipeline\nPipeline\n\x86R.".encode("latin-1"),
    "factory of the caller": b"\x80\x02ccollections\ndefaultdict\ncsklearn.pipeline\nPipeline\n\x85R.",
    "array of another class": b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncsklearn.pipeline\nPipeline\nK\x00\x85C\x01b\x87R.",
    "old array of joblib": b"\x80\x02cjoblib.numpy_pickle_compat\nNDArrayWrapper\n)\x81}b.",
    "hidden pickle": pickle.dumps({"cache": pickle.dumps(CALLS["os.system"])}),
    "state of a partial": b"\x80\x02cfunctools\npartial\ncsklearn.utils.validation\ncheck_array\n\x85R(cnumpy\nlog\n)}NtB.".replace(b"tB", b"tb"),
    "dill in a pickle": pickle.dumps([cloudpickle.dumps(lambda: os.getcwd())]),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_tricks_of_the_format_do_not_pass(tmp_path, name):
    with pytest.raises(Unsafe):
        check(RAW[name], tmp_path)


def joblib_array(frame=None, **changes) -> bytes:
    """One array as joblib writes it, by hand: opcodes, then raw bytes; `frame` makes opcodes claim those bytes."""
    state = {
        "subclass": np.ndarray,
        "shape": (2,),
        "order": "C",
        "dtype": np.dtype("f8"),
        "allow_mmap": False,
    } | changes
    body = pickle.dumps(state, 2)[2:-1]
    opcodes = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81" + body + b"b"
    head = b"\x80\x04" + (b"\x95" + struct.pack("<Q", len(opcodes) + frame) if frame is not None else b"")
    return head + opcodes


def test_the_bytes_of_a_joblib_array_are_followed_as_joblib_reads_them(tmp_path):
    attack = RAW["posix"][2:-1]
    check(joblib_array() + bytes(16) + b".", tmp_path)
    check(joblib_array(frame=0) + bytes(16) + b".", tmp_path)
    inner = pickle.dumps(np.array([None, "x"], dtype=object))
    check(joblib_array(dtype=np.dtype("O")) + inner + b".", tmp_path)
    for bad in (
        joblib_array() + bytes(16) + attack + b"0.",  # behind the bytes the opcodes go on
        joblib_array(shape=(0,)) + attack + b"0" * 3 + b".",  # fewer bytes than it seems
        joblib_array(frame=16) + bytes(16) + b".",  # a frame that claims the bytes: joblib reads on elsewhere
        joblib_array(shape=(1 << 40,)) + bytes(16) + b".",
        joblib_array(dtype=np.dtype("O")) + pickle.dumps(CALLS["os.system"]) + b".",  # a pickle of its own
        joblib_array(subclass=np.memmap) + bytes(16) + b".",
        joblib_array(shape=[2]) + bytes(16) + b".",
        joblib_array() + bytes(8),
    ):
        with pytest.raises(Unsafe):
            check(bad, tmp_path)


def test_a_dtype_that_lies_about_its_items_does_not_pass(tmp_path):
    """Flags come from the file: numbers called objects would be read as addresses, or unpickled by joblib."""
    true = pickle.dumps(np.dtype("f8"), 2)
    flags_at = true.rindex(b"K\x00")
    check(true, tmp_path)
    for flags in (1, 2, 63):
        with pytest.raises(Unsafe, match="does not agree"):
            check(true[:flags_at] + bytes([ord("K"), flags]) + true[flags_at + 2 :], tmp_path)
    objects = pickle.dumps(np.dtype("O"), 2)
    with pytest.raises(Unsafe, match="does not agree"):
        check(objects.replace(b"K?", b"K\x00"), tmp_path)
    record = np.zeros(1, dtype=[("x", "O")])
    with pytest.raises(Unsafe):
        check(pickle.dumps(record, 2), tmp_path)
    array = pickle.dumps(np.zeros(3), 4)
    with pytest.raises(Unsafe, match="does not hold"):
        check(array.replace(b"K\x03\x85", b"K\x09\x85"), tmp_path)


# --- zips and other containers ----------------------------------------------------------------------------------------


def rezipped(raw: bytes, *, extra=(), comment=b"", first=()) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        for name, data in first:
            new.writestr(name, data)
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
        for name, data in extra:
            new.writestr(name, data)
        new.comment = comment
    return out.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_tricks_with_zips_do_not_pass(tmp_path):
    good = checkpoint({"w": torch.zeros(4)})
    planted = pickle.dumps(CALLS["os.system"])
    assert check(rezipped(good), tmp_path)
    flipped = bytearray(good)
    flipped[good.index(b"OrderedDict") + 2] ^= 1
    renamed = good.replace(b"archive/data.pkl", b"archive/data.pkX", 1)
    for bad in (
        rezipped(good, extra=[("archive/data.pkl", planted)]),
        rezipped(good, extra=[("archive/DATA.pkl", planted)]),
        rezipped(good, extra=[("archive/code/__torch__.py", b"x")]),
        rezipped(good, extra=[("archive/constants.pkl", planted)]),
        rezipped(good, extra=[("other/data.pkl", planted)]),
        rezipped(good, extra=[("../data/0", b"x")]),
        rezipped(good, comment=b"PK"),
        b"\x80\x02N." + good,
        good + b"x",
        good[: len(good) // 2],
        bytes(flipped),
        renamed,
        rezipped(checkpoint(CALLS["os.system"])),
    ):
        with pytest.raises(Unsafe):
            check(bad, tmp_path, flavour="torch")


@pytest.mark.parametrize(
    "raw",
    [b"\x89PNG\r\n\x1a\n\x00\x00", b"\x7fELF\x02\x01", b"ZF\x01", hashlib.sha512(b"noise").digest(), b"BZh9not", b"\x1f\x8b\x08cut", b"\x93NUMPY\x09\x00",
     b"\x78\x9c" + bytes(8), b'\x10\x00\x00\x00\x00\x00\x00\x00{"x": 1}        extra'],
)  # fmt: skip
def test_unknown_or_broken_formats_do_not_pass(tmp_path, raw):
    for name in ("model.pkl", "model.bin", "model", "model.txt"):
        with pytest.raises(Unsafe):
            check(raw, tmp_path, name)


STUMBLES = {
    "a number that is none": (b"a: !!int ''", "a.yaml"),
    "a time that is none": (b"a: !!timestamp 'x'", "a.yaml"),
    "a truth that is none": (b"a: !!bool 'x'", "a.yaml"),
    "a day that is none": (b"a: 2020-13-45", "a.yaml"),
    "an offset that is none": (struct.pack("<Q", 30) + b'{"a":{"data_offsets":[0,"x"]}}', "a.safetensors"),
}


@pytest.mark.parametrize("name", STUMBLES)
def test_what_a_parser_stumbles_over_is_a_finding(tmp_path, name):
    """It would keep the scan from saying what lies beside."""
    raw, called = STUMBLES[name]
    with pytest.raises(Unsafe):
        check(raw, tmp_path, called)


@pytest.mark.parametrize("said", ["a: 2020-13-45", "flavors: {python_function: {loader_module: [a]}}"])
def test_an_mlmodel_that_a_parser_stumbles_over_is_a_finding(scan, directory, said):
    folder = directory()
    (folder / "MLmodel").write_text(said)
    assert scan(folder)[0]["failedTests"] == ["allow-list"]


def test_compressed_files_hold_one_whole_stream(tmp_path, monkeypatch):
    import gzip

    good = gzip.compress(pickle.dumps([1]))
    check(good, tmp_path)
    for bad in (
        good + good,
        good + b"x",
        good[:-5],
        gzip.compress(b"no pickle"),
        gzip.compress(pickle.dumps(CALLS["eval"])),
    ):
        with pytest.raises(Unsafe):
            check(bad, tmp_path)
    monkeypatch.setattr(formats, "MAX_EXPANDED", 1000)
    with pytest.raises(Unsafe, match="without measure"):
        check(gzip.compress(pickle.dumps(bytes(100_000))), tmp_path)


def test_text_passes_unless_it_is_an_old_pickle(tmp_path):
    for name, text in {
        "a.json": '{"learner": {}}',
        "MLmodel": "flavors: {}\n",
        "r.txt": "numpy==2\n",
        "a.csv": "col1,col2\n1,2\n3,4\n",
    }.items():
        check(text.encode(), tmp_path, name)
    for name, raw in {"notes.txt": RAW["protocol 0"], "a.csv": RAW["INST"], "a.json": b"{", "a.py": b"x = 1\n", "a.yaml": b"!!python/object/apply:os.system [x]",
                      "pickle_module_info.txt": b"antigravity"}.items():  # fmt: skip
        with pytest.raises(Unsafe):
            check(raw, tmp_path, name)
    check(b"mlflow.pytorch.pickle_module", tmp_path, "data/pickle_module_info.txt")


def test_safetensors_pass_and_hold_nothing_behind(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    good = struct.pack("<Q", len(header)) + header + bytes(8)
    check(good, tmp_path, "model.safetensors")
    for bad in (good + b"x", good[:-1], struct.pack("<Q", len(header)) + b"{" * len(header) + bytes(8)):
        with pytest.raises(Unsafe):
            check(bad, tmp_path, "model.safetensors")


def test_no_name_on_the_list_is_one_that_runs_what_it_is_given():
    """Written against the list, whoever adds to it: each name exists as what it is said to be, none is a known gadget."""
    import importlib
    import inspect

    forbidden = {"eval", "exec", "compile", "open", "getattr", "setattr", "map", "filter", "partial", "load", "loads", "memmap",
                 "fromfile", "system", "Popen", "import_module", "__import__", "methodcaller", "attrgetter", "Memory", "Parallel"}  # fmt: skip
    missing = []
    for module, names in sklearn_classes.CLASSES.items():
        assert module.startswith(("sklearn.", "scipy.sparse."))
        assert ".datasets" not in module and ".externals" not in module
        for name in names.split():
            assert name not in forbidden
            found = getattr(importlib.import_module(module), name, None)
            if not inspect.isclass(found):
                missing.append(f"{module}.{name}")
            elif "__reduce__" in vars(found) or "__reduce_ex__" in vars(found):
                assert name in {"BallTree", "KDTree", "EuclideanDistance64", "ManhattanDistance64"}, (
                    f"{name} reduces its own way"
                )
    assert len(missing) < 12, f"names of other releases: {missing}"
    for flavour in allowlist.FLAVOURS:
        every = allowlist.AllowList(flavour)
        pairs = {*every._calls, *every._classes, *every._values} - {("functools", "partial")}  # pinned to one function
        assert not {name for _, name in pairs} & forbidden


# --- the stage --------------------------------------------------------------------------------------------------------


@pytest.fixture
def scan(perform, tmp_path):
    def go(model, **arguments):
        report, shown = tmp_path / f"report-{len(list(tmp_path.iterdir()))}.sarif", []
        said = perform("testing.model_file", model=model, report=report, log=shown.append, **arguments)
        assert hashlib.sha256(report.read_bytes()).hexdigest() in json.dumps(said.predicate)
        return said.predicate, json.loads(report.read_text()), "\n".join(shown)

    return go


def entry(said, name):
    (found,) = [one["annotations"] for one in said["configuration"] if one.get("name") == name]
    return found


@pytest.fixture
def directory(tmp_path, fitted):
    """An MLflow directory, as mlflow.sklearn writes one."""

    def write(payload=None, requirements="scikit-learn==1.7.0\nnumpy==2.1\n", **changes):
        folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "model.pkl").write_bytes(payload or cloudpickle.dumps(fitted["randhie"]))
        flavors = {
            "sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle", "code": None},
            "python_function": {
                "loader_module": "mlflow.sklearn",
                "model_path": "model.pkl",
                "env": {"conda": "conda.yaml"},
            },
        }
        for flavour, fields in changes.items():
            flavors[flavour] = {**flavors.get(flavour, {}), **fields}
        (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
        (folder / "requirements.txt").write_text(requirements)
        (folder / "conda.yaml").write_text("name: mlflow-env\n")
        return folder

    return write


def test_an_ordinary_model_passes_and_the_others_opinions_stand_beside(scan, directory, fitted):
    said, report, _ = scan(directory(pickle.dumps(fitted["randhie"], 4)))
    assert "allow-list" in said["passedTests"] and said["failedTests"] == []
    assert entry(said, "allow-list") == {"list": "sklearn/2", "files": 4, "flawed": 0}
    assert report["runs"][0]["results"] == []
    fickling = entry(said, "fickling")
    assert fickling["version"] and fickling["disagrees"]
    assert said["result"] == "WARNED" and "fickling" in said["warnedTests"], "policy decides, not we"
    said = scan(directory(), second_opinions="fickling")[0]
    assert entry(said, "fickling")["notRead"] == 1, "it stops at an opcode of protocol 5: not read is not clean"
    assert scan(directory(), second_opinions="")[0]["result"] == "PASSED"


def test_a_planted_model_fails_by_every_opinion(scan, directory):
    said, report, shown = scan(directory(pickle.dumps(CALLS["os.system"])))
    assert said["result"] == "FAILED" and said["failedTests"] == ["allow-list"]
    assert "posix.system" in entry(said, "allow-list")["reason"] and "model.pkl" in shown
    assert {"picklescan", "fickling"} <= set(said["warnedTests"])
    assert entry(said, "picklescan")["flagged"] == 1 and not entry(said, "picklescan")["disagrees"]
    assert [r["level"] for r in report["runs"][0]["results"]] == ["error"] and sarif_schema.faults(report) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"python_function": {"loader_module": "os"}}, "no loader that is known"),
        ({"sklearn": {"code": "code"}}, "code of its own"),
        ({"sklearn": {"pickled_model": "../../other.pkl"}}, "outside of the model"),
        ({"mleap": {}}, "has no list"),
        ({"pytorch": {"model_data": "data"}}, "or several"),
        ({"requirements": "scikit-learn>=1\n"}, "does not pin"),
        ({"requirements": "scikit-learn==0.24.2\n"}, "was reviewed for"),
        ({"requirements": "<html>\n"}, "cannot be read"),
    ],
)
def test_what_mlmodel_may_not_say(scan, directory, changes, reason):
    said, _, _ = scan(directory(**changes), second_opinions="")
    assert said["failedTests"] == ["allow-list"] and reason in entry(said, "allow-list")["reason"]


def test_each_file_counts(scan, directory):
    folder = directory()
    (folder / "code").mkdir()
    (folder / "code" / "helper.py").write_text("import os\n")
    said, _, shown = scan(folder, second_opinions="")
    assert said["failedTests"] == ["allow-list"] and "helper.py" in shown


def test_a_single_file_and_a_given_flavour(scan, tmp_path, fitted):
    file = tmp_path / "forest.joblib"
    joblib.dump(fitted["forest"], file)
    assert scan(file, second_opinions="")[0]["result"] == "PASSED"
    assert scan(file, second_opinions="", flavour="plain")[0]["result"] == "FAILED"
    (tmp_path / "weights.pt").write_bytes(checkpoint({"w": torch.zeros(2)}))
    assert scan(tmp_path / "weights.pt", second_opinions="")[0]["result"] == "PASSED"
    for wrong in ({"flavour": "keras"}, {"second_opinions": "clamav"}, {"second_opinions": "fickling,fickling"}):
        with pytest.raises(Misuse, match="there is no such"):
            scan(file, **wrong)


def test_a_cut_off_or_foreign_file_is_a_finding_and_an_empty_one_is_none(scan, tmp_path, fitted):
    file = tmp_path / "model.pkl"
    for raw in (pickle.dumps(fitted["forest"])[:-100], b"\x89PNG\r\n\x1a\n"):
        file.write_bytes(raw)
        said, _, _ = scan(file)
        assert said["failedTests"] == ["allow-list"] and entry(said, "allow-list")["reason"]
    file.write_bytes(b"")
    with pytest.raises(Unreadable, match="empty"):
        scan(file)


def test_the_signature_comes_first(authority, perform, tmp_path, fitted):
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps({"own": str(tmp_path)}))

    def scanned(role="producer"):
        return perform(
            "testing.model_file",
            archive=lambda: Archive.open(authority.trust, authority.store),
            model=file,
            report=tmp_path / f"{len(list(tmp_path.iterdir()))}.sarif",
            producer_issuer=authority.issuer,
            producer_san=authority.san(role),
            provenance="data-provenance",
            second_opinions="",
        ).predicate

    with pytest.raises(NoEvidence):
        scanned()
    bundle = authority.signer("producer").sign(statement.make(measure(file).subjects, data_provenance.URI, dict(CLAIM)))
    said = scanned()
    assert said["passedTests"] == ["signature", "allow-list"]
    assert entry(said, "signature")["evidenceId"] == bundle.evidence_id
    with pytest.raises(UntrustedSigner):
        scanned("evaluator")
    revoke(authority, bundle)
    with pytest.raises(Revoked):
        scanned()
