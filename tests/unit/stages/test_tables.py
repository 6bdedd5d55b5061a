"""What a table file holds, its columns hold: a stage that looked at columns alone would call the rest clean."""

import io

import pandas as pd
import pytest

from mlseal.errors import Misuse, Unreadable
from mlseal.stages import tables

PEOPLE = pd.DataFrame({"email": ["ada@example.com", "bob@example.com"], "dose": [1.5, 2.0]})


def written(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,x\n2,y\n",
        "\ufeffa,b\n1,x\n2,y\n",
        "a,b\r\n1,x\r\n2,y\r\n",
        'a,b\n1,"x;y"\n2,"p|q"\n',
        "a,b,\n1,x,\n2,y,\n",
    ],
)
def test_ordinary_tables_are_read(tmp_path, content):
    frame = tables.read(written(tmp_path, content))
    assert list(frame.columns)[:2] == ["a", "b"] and list(frame["a"]) == [1, 2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\nada@example.com,1,\nbob@example.com,2,\n", "more fields than its header.*got 2 names, 3 fields"),
        ("a,b\nada@example.com,1,2\nbob@example.com,2,3\n", "more fields than its header"),
        ("a,b\nada@example.com,cy@example.com,1,2\nbob@example.com,di@example.com,2,3\n", "got 2 names, 4 fields"),
        ("first_name;dose\nada;1\nbob;2\n", "is one column.*header with ';'.*sep=';'"),
        ("first_name;dose\nada;1,5\nbob;2,5\n", "more fields than its header"),
        ("first_name\tdose\nada\t1\nbob\t2\n", r"is one column.*sep='\\t'"),
        ("first_name|dose\nada|1\nbob|2\n", "is one column"),
        ("é,b\nx,1\n".encode("latin-1"), "cannot be read.*UTF-8"),
        ("a,b\nx,1\n".encode("utf-16"), "cannot be read.*UTF-8"),
        ("a,b\n", "has no rows"),
        ("", "cannot be read"),
    ],
)
def test_what_would_hide_values_or_is_no_table_is_not_read(tmp_path, content, words):
    with pytest.raises(Unreadable, match=words):
        tables.read(written(tmp_path, content))


def test_a_parquet_file_may_have_no_index_of_its_own(tmp_path):
    path = tmp_path / "table.parquet"
    PEOPLE.to_parquet(path)
    assert list(tables.read(path).columns) == ["email", "dose"]
    PEOPLE.set_index("email").to_parquet(path)
    with pytest.raises(Unreadable, match="keeps values in an index.*index email.*reset_index"):
        tables.read(path)
    PEOPLE.set_axis([7, 3]).to_parquet(path)
    with pytest.raises(Unreadable, match="an index without a name"):
        tables.read(path)
    PEOPLE[PEOPLE.dose > 1.7].to_parquet(path)
    assert len(tables.parsed(io.BytesIO(path.read_bytes()), "any.parquet")) == 1


def test_other_suffixes_are_no_tables(tmp_path):
    with pytest.raises(Misuse, match=r"expected \.csv or \.parquet"):
        tables.read(tmp_path / "table.xlsx")
