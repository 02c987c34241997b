import pytest
from defectflow.core.files import UserError
from defectflow.sources.feedback import read_feedback


@pytest.fixture
def table(tmp_path):
    for name in ("a.jpg", "b, new.jpg"):
        (tmp_path / name).write_text(name)
    return tmp_path / "feedback.csv"


def test_rows_are_read_with_their_lines(table):
    table.write_text('\nfilename;said;who\n\na.jpg;Bad;Ann\n"b, new.jpg";good\n')
    assert [(row.line, row.path.name, row.bad) for row in read_feedback(table)] == [
        (4, "a.jpg", True),
        (5, "b, new.jpg", False),
    ]


def test_a_quote_that_is_not_closed_swallows_no_row(table):
    table.write_text('filename,said,who\na.jpg,bad,"Ann\n"b, new.jpg",good,Ben\n')
    with pytest.raises(UserError, match=r"feedback\.csv, line 2: a double quote is not closed"):
        read_feedback(table)


def test_a_cell_too_many_is_refused(table):
    table.write_text("filename,said\nb, new.jpg,good\n")
    with pytest.raises(UserError, match="line 2: more cells than columns"):
        read_feedback(table)
