"""Examples in docstrings give what they show."""

import doctest
import importlib

import pytest
from conftest import ROOT

PACKAGE = ROOT / "workflow/defectflow"
WITH_EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text())


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_of_a_module_hold(path):
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    failed, tried = doctest.testmod(module)
    assert tried > 0 and failed == 0


def test_the_rooms_that_compute_have_examples():
    assert {path.parent.name for path in WITH_EXAMPLES} >= {"core", "images", "annotations", "metrics", "decision"}
