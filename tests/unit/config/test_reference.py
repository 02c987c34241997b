import jsonschema
import pytest
import yaml
from conftest import ROOT
from defectflow.config import reference
from defectflow.config.configuration import sections
from defectflow.config.settings import Family

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


def test_the_page_is_that_of_the_classes(tmp_path):
    reference.main(
        reference.build_parser().parse_args([str(tmp_path / "page.md"), "--schema", str(tmp_path / "s.json")])
    )
    page = (ROOT / "docs/configuration.md").read_text()
    assert (tmp_path / "page.md").read_text() == page, (
        "run `python -m defectflow.config.reference docs/configuration.md`"
    )


def test_the_page_names_every_key_of_the_config():
    page = (ROOT / "docs/configuration.md").read_text()
    for section, kind in sections().items():
        assert f"## {section}" in page
        for cls in kind.classes.values() if isinstance(kind, Family) else [kind]:
            assert all(f"| `{key}` |" in page for key in cls.own_keys())
    assert "| `coreset_max` | integer | 10000 | 1 or more |" in page and "read by method" in page


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"folds": 3, "review": {"max_fpr": 0, "max_fnr": 1}}, True),
        ({"folds": 1}, False),
        ({"detecter": "patchcore"}, False),
        ({"review": {"max_fpr": 0.1}}, False),
        ({"detectors": {"p": {"method": "padim", "coreset_max": 9}}}, False),
        ({"detectors": {"p": {"method": "patchcore", "top_fraction": 1}}}, False),
        ({"segmenters": {"s": {"method": "sam2.1"}}}, False),
        ({"datasets": {"d": {"rendered": {"views": 5}}}}, False),
    ],
)
def test_the_schema_says_what_the_checks_say(change, valid):
    validator = jsonschema.Draft202012Validator(reference.schema())
    assert validator.is_valid(CONFIG | change) is valid
