"Tables as other people write them: columns, lines, flags, and what cannot be read"

import numpy as np
import pandas as pd
import pytest

from fairparse.core.runs import InputError
from fairparse.data.tables import (
    column_names,
    is_delimited,
    read_cells,
    read_flags,
    read_pairs,
    read_rows,
)


def table(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "id,x\na,1\nb,2\n",
        "\ufeffid,x\r\na,1\r\nb,2\r\n",
        "id , x\na , 1\nb , 2",
        '"id","x"\n"a","1"\n"b","2"\n',
        "ID;X\na;1\nb;2\n",
        "x\tId\n1\ta\n2\tb\n",
        ",id,x\n0,a,1\n1,b,2\n",
        "Unnamed: 0,id,x\n5,a,1\n6,b,2\n",
        "id,x,\na,1,\nb,2,\n",
    ],
)
def test_a_table_is_the_same_in_every_hand(tmp_path, text):
    path = table(tmp_path, text)
    assert {"id", "x"} <= set(column_names(path))
    cells = read_cells(path, ["id", "x"])
    assert cells.id.tolist() == ["a", "b"] and cells.x.tolist() == ["1", "2"]
    assert cells.index.tolist() == [2, 3]


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.b.Csv"])
def test_tables_are_told_by_their_names(name):
    assert is_delimited(name) and not is_delimited(f"{name}.txt") and not is_delimited("csv")


@pytest.mark.parametrize("above", ["\n", " \r\n\r\n", ",\n", "\ufeff\n"])
def test_empty_lines_above_the_names_are_skipped(tmp_path, above):
    path = table(tmp_path, f"{above}Id,x\na,1\n")
    assert column_names(path) == ["id", "x"]
    assert read_cells(path, ["id"]).id.tolist() == ["a"]
    assert column_names(table(tmp_path, above)) == []


def test_lines_are_those_of_the_file(tmp_path):
    path = table(tmp_path, "id,x\n\na,1\n\n\nb,2,3\n")
    assert [line for line, _ in read_rows(path)] == [1, 3, 6]
    with pytest.raises(InputError, match="line 6 has 3 values for 2 columns"):
        read_cells(path, ["id"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (b"\xff\xfe\x00\x80", "is not a text file"),
        ('id,x\na,"1\nb,2\n', "line 2: a cell in quotation marks goes on in the next line: close"),
        ('id,x\na,1\n\nb,"1\n2"\n', "line 4: .* close the mark, or take the line break out"),
        ("id,y\na,1\n", "has no column 'x': it has .'id', 'y'."),
        ("id,x,X\na,1,2\n", "the columns .'x', 'X'. have one name"),
        ("id,x,\na,1,2\n", "column 3 has no name"),
        (",x,id\nanna,1,a\n", "column 1 has no name"),
        ("id,x\na\n", "line 2 has 1 values for 2 columns"),
    ],
)
def test_a_table_that_is_none_says_why(tmp_path, text, message):
    with pytest.raises(InputError, match=f"table.csv.*{message}"):
        read_cells(table(tmp_path, text), ["id", "x"])
    with pytest.raises(InputError, match="missing.csv"):
        read_cells(tmp_path / "missing.csv", ["id"])


def test_a_cell_may_be_longer_than_python_s_usual_limit(tmp_path):
    pixels = "0 " * 100_000
    assert len(read_cells(table(tmp_path, f"id,x\na,{pixels}\n"), ["x"]).x.iloc[0]) == 199_999


@pytest.mark.parametrize("count", ["", "2\n"])
def test_text_files_of_celeba(tmp_path, count):
    path = table(tmp_path, f"{count}Hat Young\n1.jpg  1 -1\n2.jpg -1  1\n", "list.txt")
    cells = read_cells(path, ["id"], first="id")
    assert cells.id.tolist() == ["1.jpg", "2.jpg"] and cells.Young.tolist() == ["-1", "1"]
    path = table(tmp_path, "id,Hat\n1.jpg,1\n", "commas.txt")
    assert read_cells(path, ["id"], first="id").Hat.tolist() == ["1"]


def test_pairs_with_and_without_names(tmp_path):
    wanted = [("0", "hair"), ("1", "skin")]
    for text in (
        "0,hair\n1,skin\n",
        "class,value\nhair,0\nskin,1\n",
        "Value;Class\n0;hair\n1;skin\n",
    ):
        pairs = read_pairs(table(tmp_path, text), ["value", "class"], str.isdecimal)
        assert [pair[1:] for pair in pairs] == wanted
    for text in ("0,hair,1\n", "0,hair\n1\n", "0,hair\nskin,1\n"):
        with pytest.raises(InputError, match="line [12]: each line is `value,class`"):
            read_pairs(table(tmp_path, text), ["value", "class"], str.isdecimal)


def test_pairs_of_a_table_with_further_columns(tmp_path):
    for text in ("value class note\n0 hair x\n", "0 hair x\n", "0 hair\n"):
        path = table(tmp_path, text, "pairs.txt")
        pairs = read_pairs(path, ["value", "class"], str.isdecimal, further=True)
        assert [pair[1:] for pair in pairs] == [("0", "hair")]
    with pytest.raises(InputError, match="line 2: each line is `value,class`"):
        read_pairs(table(tmp_path, "0,a,x\n1\n"), ["value", "class"], str.isdecimal, further=True)


@pytest.mark.parametrize("no", ["0", "0.0", "False", "FALSE", "-1", "-1.0"])
@pytest.mark.parametrize("yes", ["1", "1.0", "+1", "True", "true"])
def test_flags_of_every_hand(yes, no):
    texts = pd.DataFrame({"Hat": [yes, no, ""]}, index=[2, 3, 4])
    assert read_flags(texts, "hats.csv", list("abc")).Hat.fillna(9).tolist() == [1, 0, 9]


@pytest.mark.parametrize("cell", ["", "NA", "NaN", "nan", "null", "NULL", "None", "none"])
def test_unknown_is_written_in_several_ways(tmp_path, cell):
    path = table(tmp_path, f"id,Hat,Old\na,1,{cell}\nb,{cell},0\n")
    cells = read_cells(path, ["id"])
    flags = read_flags(cells[["Hat", "Old"]], path, list(cells.id))
    assert flags.fillna(9).to_numpy(int).tolist() == [[1, 9], [9, 0]]


@pytest.mark.parametrize("cell", ["yes", "2", "0.5", "n", "-", "inf", "1,0"])
def test_no_other_text_is_a_flag(cell):
    texts = pd.DataFrame({"Old": ["1", "0"], "Hat": ["1", cell]}, index=[2, 7])
    with pytest.raises(InputError) as caught:
        read_flags(texts, "hats.csv", ["anna", "ben"])
    for part in ("hats.csv, line 7", "'Hat'", repr(cell), "'ben'"):
        assert part in str(caught.value)


def test_false_is_no_in_every_file_but_nought_may_be_unknown():
    texts = pd.DataFrame({"Old": ["1", "-1"], "Hat": ["True", "False"]}, index=[2, 3])
    assert read_flags(texts, "hats.csv", ["a", "b"]).to_numpy(int).tolist() == [[1, 1], [0, 0]]
    with pytest.raises(InputError, match="mixes 0 .column 'Hat'. and -1 .column 'Old'."):
        read_flags(texts.replace("False", "0"), "hats.csv", ["a", "b"])


def test_flags_of_no_rows_and_of_many():
    assert read_flags(pd.DataFrame({"Hat": []}, dtype=object), "x", []).Hat.tolist() == []
    values = np.random.default_rng(0).integers(0, 2, (500, 7))
    texts = pd.DataFrame(values.astype(str), columns=list("abcdefg"))
    assert (read_flags(texts, "x", range(500)).to_numpy(int) == values).all()
