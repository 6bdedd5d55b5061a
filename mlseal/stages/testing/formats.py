"""What kind of file a part of a model is, by its content, and what its bytes would make a reader do.

By content, because a reader goes by content: ``torch.load`` opens any zip, joblib any compression. A format that is not
known here is `Unsafe`, so is whatever a format leaves room for: a second entry of the same name, bytes before, between
or after what is read, a checksum that is wrong, an expansion without end.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import json
import lzma
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

import yaml

from mlseal.errors import Error
from mlseal.evidence import canonical
from mlseal.stages.testing import skops_schema
from mlseal.stages.testing.allowlist import AllowList
from mlseal.stages.testing.opcodes import Unsafe, walk_all

MAX_EXPANDED = 4 << 30
_SCHEMA = "schema.json"
_TEXT = (".txt", ".md", ".csv", ".yaml", ".yml", ".toml", ".cfg")
_CHUNK = 1 << 20
_COMPRESSED: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x5d\x00", "lzma"),
    (b"\x78\x01", "zlib"),
    (b"\x78\x5e", "zlib"),
    (b"\x78\x9c", "zlib"),
    (b"\x78\xda", "zlib"),
)


def check(path: Path, name: str, flavour: str, workspace: Path) -> AllowList:
    """Whether the file at `path`, called `name` in the model, does nothing that its flavour does not need.

    Returns the names that it uses. `workspace` holds what is expanded. Raises `Unsafe` with the reason, also where a
    parser stumbles over the file in a way that nobody foresaw: a file that stops the scan would hide what lies beside.
    """
    try:
        return _checked(path, name, flavour, workspace)
    except (Unsafe, Error, OSError, MemoryError):
        raise
    except Exception as error:
        raise Unsafe(f"it cannot be read ({type(error).__name__})") from error


def _checked(path: Path, name: str, flavour: str, workspace: Path) -> AllowList:
    with path.open("rb") as stream:
        head = stream.read(16)
        stream.seek(0)
        allowed = AllowList(flavour)
        if head.startswith(b"PK\x03\x04"):
            allowed = _zip(stream, flavour)
        elif head.startswith(b"\x93NUMPY"):
            _npy(stream, allowed)
        elif (codec := next((codec for magic, codec in _COMPRESSED if head.startswith(magic)), None)) is not None:
            with _expanded(stream, codec, workspace) as inner:
                if inner.read(1) != b"\x80":
                    raise Unsafe("what is compressed is no pickle")
                inner.seek(0)
                walk_all(inner, allowed)
        elif head[:1] == b"\x80":
            walk_all(stream, allowed)
        elif _is_safetensors(head, path.stat().st_size):
            _safetensors(stream, path.stat().st_size)
        else:
            _text(stream, name, allowed)
        return allowed


# --- zip --------------------------------------------------------------------------------------------------------------


def _zip(stream: IO[bytes], flavour: str) -> AllowList:
    try:
        with zipfile.ZipFile(stream) as archive:
            infos = archive.infolist()
            _require_plain_zip(stream, archive, infos)
            names = [info.filename for info in infos]
            if all(name.endswith(".npy") for name in names):
                allowed = AllowList(flavour)
                for name in names:
                    _npy(io.BytesIO(archive.read(name)), allowed)
                return allowed
            if _SCHEMA in names:
                return _skops(archive, names, flavour)
            return _torch(archive, names)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError, ValueError) as error:
        raise Unsafe(f"it is no whole zip ({type(error).__name__})") from error


def _require_plain_zip(stream: IO[bytes], archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> None:
    """Every reader must see the same entries: what the directory lists lies there, once, and nothing besides."""
    names = [info.filename for info in infos]
    if not infos or len({name.casefold() for name in names}) != len(names):
        raise Unsafe("the zip is empty or holds two entries of one name")
    stream.seek(-22, 2)
    if stream.read(4) != b"PK\x05\x06" or archive.comment or min(info.header_offset for info in infos) != 0:
        raise Unsafe("the zip has something before or behind its entries")
    if sum(info.file_size for info in infos) > MAX_EXPANDED:
        raise Unsafe("the zip expands without measure")
    for info in infos:
        if info.flag_bits & 0x1 or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise Unsafe("an entry of the zip is encrypted or compressed in an unknown way")
        if PurePosixPath(info.filename).is_absolute() or ".." in PurePosixPath(info.filename).parts:
            raise Unsafe("an entry of the zip leads out of it")
        stream.seek(info.header_offset)
        header = stream.read(30)
        if len(header) != 30 or header[:4] != b"PK\x03\x04":
            raise Unsafe("an entry of the zip has no header of its own")
        (length,) = struct.unpack("<H", header[26:28])
        if stream.read(length) != info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437"):
            raise Unsafe("an entry of the zip has two names")
    if (bad := archive.testzip()) is not None:
        raise Unsafe(f"the checksum of entry {bad[:60]} is wrong")


def _skops(archive: zipfile.ZipFile, names: list[str], flavour: str) -> AllowList:
    """A model as skops writes it: a tree of names, arrays and bytes beside it."""
    allowed = AllowList(flavour)
    skops_schema.require(archive.read(_SCHEMA), [name for name in names if name != _SCHEMA], allowed)
    for name in names:
        if name.endswith(".npy"):
            _npy(io.BytesIO(archive.read(name)), allowed)
        elif name.endswith(".npz"):
            _arrays(io.BytesIO(archive.read(name)), allowed)
    return allowed


def _arrays(stream: IO[bytes], allowed: AllowList) -> None:
    """A zip of arrays, as SciPy keeps a sparse matrix."""
    with zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        _require_plain_zip(stream, archive, infos)
        for info in infos:
            if not info.filename.endswith(".npy"):
                raise Unsafe(f"a sparse matrix holds {info.filename[:60]}, which is no array")
            _npy(io.BytesIO(archive.read(info)), allowed)


def _torch(archive: zipfile.ZipFile, names: list[str]) -> AllowList:
    """A checkpoint as ``torch.save`` writes it: one pickle, tensors beside it, no code."""
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1 or f"{next(iter(roots))}/data.pkl" not in names:
        raise Unsafe("the zip is neither arrays of NumPy, nor a checkpoint of PyTorch, nor a model of skops")
    for name in names:
        inside = name.partition("/")[2]
        known = inside in {"data.pkl", "version", "byteorder", ".format_version", ".storage_alignment"}
        if not known and inside != ".data/serialization_id" and not inside.removeprefix("data/").isdecimal():
            raise Unsafe(f"the checkpoint holds {inside[:60]}, which is no tensor")
    allowed = AllowList("torch")
    walk_all(io.BytesIO(archive.read(f"{next(iter(roots))}/data.pkl")), allowed)
    return allowed


# --- arrays and text --------------------------------------------------------------------------------------------------


def _npy(stream: IO[bytes], allowed: AllowList) -> None:
    """An array of NumPy: its header is a literal; an array of objects is a pickle behind it."""
    magic = stream.read(8)
    width = {1: 2, 2: 4, 3: 4}.get(magic[6] if len(magic) == 8 else 0)
    if not magic.startswith(b"\x93NUMPY") or width is None:
        raise Unsafe("an array of NumPy has an unknown version")
    length = int.from_bytes(stream.read(width), "little")
    header = stream.read(min(length, 65536))
    if len(header) != length:
        raise Unsafe("the header of an array is cut off")
    if b"O" in header.replace(b"fortran_order", b"").split(b"'descr':")[-1].split(b"'fortran")[0]:
        walk_all(stream, allowed)


def _is_safetensors(head: bytes, size: int) -> bool:
    return len(head) == 16 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8


def _safetensors(stream: IO[bytes], size: int) -> None:
    length = int.from_bytes(stream.read(8), "little")
    try:
        header = canonical.parse(stream.read(length), what="safetensors header", limit=100 << 20)
        ends = [0, *(entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__")]
    except (Error, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Unsafe("the header of the safetensors file is not valid") from error
    if max(ends) != size - 8 - length:
        raise Unsafe("something follows the tensors")


def _text(stream: IO[bytes], name: str, allowed: AllowList) -> None:
    """Text that no reader of models runs. Old pickles are text, too, so it must not be one."""
    raw = stream.read(64 << 20)
    if stream.read(1):
        raise Unsafe("a text is larger than 64 MiB")
    if name.endswith((".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".dat")):
        walk_all(io.BytesIO(raw), allowed)
        return
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unsafe("its format is not known") from error
    if any(char < " " and char not in "\t\n\r\f" for char in text):
        raise Unsafe("its format is not known")
    _require_known(text, PurePosixPath(name).name)
    if _calls_something(raw):
        raise Unsafe("the text is a pickle that calls something")


def _require_known(text: str, name: str) -> None:
    """Raise `Unsafe` unless a text called `name` is of a kind that no reader of models runs."""
    if name.endswith(".json"):
        _parsed(lambda: json.loads(text), "JSON")
    elif name == "MLmodel" or name.endswith((".yaml", ".yml")):
        _parsed(lambda: yaml.safe_load(text), "YAML")
    elif name == "pickle_module_info.txt":
        if text.strip() != "mlflow.pytorch.pickle_module":  # MLflow imports what it names
            raise Unsafe("it has a module imported that is not MLflow's")
    elif not name.endswith(_TEXT) and name not in {"LICENSE", "README"}:
        raise Unsafe("its format is not known")


def _parsed(read: Callable[[], Any], what: str) -> None:
    try:
        read()
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise Unsafe(f"it is no valid {what}") from error


def _calls_something(raw: bytes) -> bool:
    named = called = False
    # Whatever stops the parser stops unpickling, too; what came before it would have run.
    with contextlib.suppress(Exception):
        for opcode, argument, _ in pickletools.genops(io.BytesIO(raw)):
            if opcode.name in {"GLOBAL", "INST"}:
                named = named or all(re.fullmatch(r"[A-Za-z_][\w.]*", part) for part in str(argument).split(" "))
            named = named or opcode.name in {"STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
            called = called or opcode.name in {"REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}
    return named and called


# --- compression ------------------------------------------------------------------------------------------------------


def _expanded(stream: IO[bytes], codec: str, workspace: Path) -> IO[bytes]:
    """The expanded content, as a file: one stream, whole, with nothing behind it."""
    decoder: Any = {
        "gzip": lambda: zlib.decompressobj(31),
        "zlib": zlib.decompressobj,
        "bz2": bz2.BZ2Decompressor,
        "xz": lzma.LZMADecompressor,
        "lzma": lzma.LZMADecompressor,
    }[codec]()
    workspace.mkdir(mode=0o700, exist_ok=True)
    target = (workspace / "expanded").open("w+b")
    total, pending = 0, b""
    flaw = None
    try:
        while flaw is None and not decoder.eof:
            if not pending and getattr(decoder, "needs_input", True):
                pending = stream.read(_CHUNK)
                flaw = None if pending else "what is compressed is cut off"
            data = decoder.decompress(pending, _CHUNK)
            pending = getattr(decoder, "unconsumed_tail", b"")
            total += target.write(data)
            if total > MAX_EXPANDED:
                flaw = "what is compressed expands without measure"
        if flaw is None and (decoder.unused_data or stream.read(1)):
            flaw = "something follows what is compressed"
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        flaw = f"it cannot be expanded ({type(error).__name__})"
    if flaw is not None:
        target.close()
        raise Unsafe(flaw)
    target.seek(0)
    return target
