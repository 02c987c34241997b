"""labels.csv: every line becomes one row as it was meant, or the run stops and names the line."""

import csv
import io
import re

import pytest
from defectflow.core.files import UserError
from defectflow.sources.dataset import row_reader
from defectflow.sources.labels_csv import LABEL_COLUMNS, LABELS, read_labels
from hypothesis import given, settings
from hypothesis import strategies as st

HEADER = "filename,label,defect_type,group,mask"


def read(tmp_path, content: str | bytes) -> list[tuple[str, ...]]:
    """Rows of labels.csv with this content, as (filename, label, defect_type, group, mask, split)."""
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [tuple(row[column] for column in LABEL_COLUMNS) for row in read_labels(path)]


TWO = [("a.jpg", "0", "", "A", "", ""), ("b.jpg", "1", "dent", "B", "", "")]


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\na.jpg,0,,A,\nb.jpg,1,dent,B,\n",
        f"{HEADER},,\na.jpg,0,,A,,,\nb.jpg,1,dent,B,,,\n,,,,,,\n",  # columns that were emptied in a spreadsheet
        f"{HEADER}\na.jpg,0,,A,,,\nb.jpg,1,dent,B,,,\n",
        f"{HEADER}\na.jpg,0,,A\nb.jpg,1,dent,B",  # the empty cells at the end are dropped
        "filename;label;defect_type;group\r\na.jpg;0;;A\r\n\r\n;;;\r\nb.jpg;1;dent;B\r\n",
        "filename\tlabel\tdefect_type\tgroup\na.jpg\t0\t\tA\n\t\t\t\nb.jpg\t1\tdent\tB\n",
        "sep=;\nfilename;label;defect_type;group\na.jpg;0;;A\nb.jpg;1;dent;B\n",
        '"sep=,",,,\nfilename,label,defect_type,group\na.jpg,0,,A\nb.jpg,1,dent,B\n',
        "SEP=|\r\nfilename|label|defect_type|group\r\na.jpg|0||A\r\nb.jpg|1|dent|B\r\n",
        "sep=\t\nfilename\tlabel\tdefect_type\tgroup\na.jpg\t0\t\tA\nb.jpg\t1\tdent\tB\n",
        " Filename , LABEL,Defect Type,Group\r a.jpg , 0, , A\rb.jpg,1 ,dent ,B\r",
        '"filename","label","defect-type","group"\n"a.jpg","0.0","","A"\n"b.jpg", "1.0","dent","B"\n',
        b"\xef\xbb\xbf" + b"filename,label,defect_type,group\na.jpg,good,,A\nb.jpg,Bad,dent,B\n",
        "filename\tlabel\tdefect_type\tgroup\r\na.jpg\tOK\t\tA\r\nb.jpg\tNOK\tdent\tB\r\n".encode("utf-16"),
    ],
)  # fmt: skip
def test_what_spreadsheets_and_editors_write_is_read(tmp_path, content):
    assert read(tmp_path, content) == TWO


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER, "a.jpg,0,,A,", 'b.jpg,1,"3 mm scratch,B,', "c.jpg,0,,,"], "labels.csv, line 3: a double quote"),
        ([HEADER, 'a.jpg,0,"two', 'lines",A,'], "labels.csv, line 2: a double quote is not closed in this line"),
        ([HEADER, 'a.jpg,1,"3" scratch",A,'], "line 2: a double quote"),
        ([HEADER, 'a.jpg,1,deep "scratch, long",A'], "line 2: a double quote"),
        ([HEADER, 'a.jpg,1,"x",y"z'], "line 2: a double quote"),
        (["filename,label,Label", "a.jpg,0,1"], "2 columns are called 'label' (delete or rename all but one)"),
        (["filename,label,group,group", "a.jpg,0,A,A"], "2 columns are called 'group'"),
        ([HEADER, "a, b.jpg,0,,A,,"], "line 2: label 'b.jpg' is not allowed (0, good, ok"),
        ([HEADER, "a.jpg,1,scratch, deep,A,"], "line 2: 'A' is in the column mask"),
        (["filename,label,defect_type,group", "a.jpg,1,dent,", "b.jpg,1,scratch, deep,"], "line 3: more cells than"),
        (["filename,label,", "a.jpg,0,note"], "line 2: 'note' is in a column without a name"),
        ([",filename,label", "0,a.jpg,0"], "line 2: '0' is in a column without a name"),
        (["filename,label", "a.jpg,0,1"], "line 2: more cells than columns"),
        (["filename,label", ",1"], "line 2: no filename"),
        (["image,label", "a.jpg,0"], "unknown column 'image' (filename? allowed: filename, label"),
        (["File Name,class", "a.jpg,0"], "unknown column 'File Name' (filename? "),
        (["filename,Class", "a.jpg,0"], "unknown column 'Class' (label? "),
        (["a.jpg,0", "b.jpg,1"], "the first line names no column (write `filename,label` there"),
        (["sep=;"], "no line names the columns"),
        (["sep=x", "filenamexlabel"], "cells separated by 'x' are not read"),
        (["", " "], "the file is empty"),
        (["filename,label", "a.jpg,True"], "line 2: label 'True' could mean good or bad (write 0 or good, 1 or bad)"),
        (["filename,label", "a.jpg,-1"], "line 2: label '-1' is not allowed"),
        (["filename,label", "a.jpg,.1"], "line 2: label '.1' is not allowed"),
        (["filename,label", "a.jpg,-"], "line 2: label '-' is not allowed"),
    ],
)
def test_what_may_mean_two_things_stops(tmp_path, lines, message):
    if "in the column mask" in message:
        assert read(tmp_path, "\n".join(lines))[0][3:5] == ("deep", "A")  # ingest tells that there is no such mask
        return
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read(tmp_path, "\n".join(lines))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"filename,label\n\xfcber.jpg,0\n", "filename,label\na.jpg,0\n".encode("utf-16-le")]
)
def test_other_encodings_are_told(tmp_path, content):
    with pytest.raises(UserError, match="save it as CSV UTF-8"):
        read(tmp_path, content)


def test_an_inch_mark_in_a_cell_is_read_as_it_is(tmp_path):
    rows = read(tmp_path, f'{HEADER}\na.jpg,1,3" scratch,A,\nb.jpg,1,"3"" scratch, long",A,\n')
    assert [row[2] for row in rows] == ['3" scratch', '3" scratch, long']


def test_numbers_with_a_decimal_comma_are_read(tmp_path):
    (tmp_path / "labels.csv").write_text("filename;label\na.jpg;0,0\nb.jpg;1,0\n")
    assert [row["label"] for row in read_labels(tmp_path / "labels.csv")] == ["0", "1"]
    (tmp_path / "labels.csv").write_text("filename;label\na.jpg;0,5\n")
    with pytest.raises(UserError, match="line 2: label '0,5' is not allowed"):
        read_labels(tmp_path / "labels.csv")


@pytest.mark.parametrize("word", ["OK", "io", "i.O.", "Pass", "normal", "defect free", "Good", "0", "0.0", "0.00"])
def test_words_for_good(tmp_path, word):
    assert read(tmp_path, f"filename,label\na.jpg,{word}\n")[0][1] == "0"


@pytest.mark.parametrize(
    "word", ["NOK", "ng", "n.i.O.", "Fail", "anomaly", "Anomalous", "not ok", "defective", "BAD", "1", "1.0", "1.00"]
)
def test_words_for_bad(tmp_path, word):
    assert read(tmp_path, f"filename,label\na.jpg,{word}\n")[0][1] == "1"


@pytest.mark.parametrize(
    ("labels", "expected", "told"),
    [
        ("00", "0", "two rows (lines 2 and 3: delete one)"),
        ("01", "", "two rows (lines 2 and 3: good and bad; delete the wrong one)"),
        ("-1", "1", "two rows (lines 2 and 3: delete one)"),
        ("1-", "1", "two rows (lines 2 and 3: delete one)"),
        ("001", "", "two rows (lines 2 and 4: good and bad; delete the wrong one)"),
        ("010", "", "two rows (lines 2 and 3: good and bad; delete the wrong one)"),
        ("-01", "", "(lines 2 and 4: good and bad; delete the wrong one)"),
    ],
)
def test_rows_of_one_image_that_contradict_each_other_give_no_label(tmp_path, labels, expected, told):
    rows = [f"{'./' * number}test/dent/a.jpg,{label.strip('-')},dent,A" for number, label in enumerate(labels)]
    (tmp_path / "labels.csv").write_text("\n".join(["filename,label,defect_type,group", *rows]))
    resolved = {"layout": "coco", "images": str(tmp_path), "labels": str(tmp_path / "labels.csv")}
    name = "test/dent/a.jpg"
    for layout in ("coco", "mvtec"):
        row, problems = row_reader(resolved | {"layout": layout}, [name])
        assert row(name)["label"] == expected and row(name)["group"] == "A"
        assert (row(name)["defect_type"] == "dent") == bool(expected)
        assert len(problems) == len(labels) - 1 and any(told in problem.text for problem in problems)


# --- Any table ------------------------------------------------------------------------------------------------------
text = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from(",;\"' \t|"), max_size=8)
tables = st.lists(
    st.fixed_dictionaries(
        {
            "filename": text.filter(str.strip),
            "label": st.sampled_from(sorted(LABELS)),
            "defect_type": text,
            "group": text,
            "mask": text,
            "split": st.sampled_from(["", "train", "test"]),
        }
    ),
    min_size=1,
    max_size=5,
)
forms = st.tuples(
    st.sampled_from(",;\t"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)


def written(rows, form, columns) -> bytes:
    delimiter, quoting, ending, told, encoding = form
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=ending)
    writer.writerow(columns)
    writer.writerows([row[column.lower()] for column in columns] for row in rows)
    return ((f"sep={delimiter}{ending}" if told else "") + stream.getvalue()).encode(encoding)


@settings(max_examples=200, deadline=None)
@given(tables, forms, st.permutations(LABEL_COLUMNS), st.booleans())
def test_any_table_comes_back_as_it_was_written(tmp_path_factory, rows, form, columns, capitals):
    columns = [column.upper() for column in columns] if capitals else columns
    found = read(tmp_path_factory.mktemp("labels"), written(rows, form, columns))
    expected = [row | {"label": LABELS[row["label"]]} for row in rows]
    assert found == [tuple(row[column].strip() for column in LABEL_COLUMNS) for row in expected]


@settings(max_examples=200, deadline=None)
@given(tables, forms, st.data())
def test_a_quote_that_is_not_closed_stops(tmp_path_factory, rows, form, data):
    """A quote before any cell of a line; what stays readable must not have fewer rows, nor other cells elsewhere."""
    delimiter, _, ending, told, encoding = form
    content = written(rows, form, LABEL_COLUMNS).decode(encoding)
    lines = content.removesuffix(ending).split(ending)
    number = data.draw(st.integers(told, len(lines) - 1), "line")
    in_quotes, starts = False, [0]
    for place, character in enumerate(lines[number]):
        in_quotes ^= character == '"'
        if character == delimiter and not in_quotes:
            starts.append(place + 1)
    place = data.draw(st.sampled_from(starts), "cell")
    lines[number] = lines[number][:place] + '"' + lines[number][place:]
    with pytest.raises(UserError, match=rf"line {number + 1}: a double quote"):
        read(tmp_path_factory.mktemp("labels"), ending.join(lines).encode(encoding))


@settings(max_examples=50, deadline=None)
@given(tables, forms, st.sampled_from(LABEL_COLUMNS), st.booleans())
def test_a_column_that_comes_twice_stops(tmp_path_factory, rows, form, column, capitals):
    again = column.upper() if capitals else column
    with pytest.raises(UserError, match=f"2 columns are called '{column}'"):
        read(tmp_path_factory.mktemp("labels"), written(rows, form, [*LABEL_COLUMNS, again]))
