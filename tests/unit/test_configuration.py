import copy
from pathlib import Path

import pytest
import yaml
from defectflow.configuration import Run, check_schema, resolve_runs, typed
from defectflow.files import UserError

ROOT = Path(__file__).parents[2]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


def changed(**keys) -> dict:
    return copy.deepcopy(CONFIG) | keys


def test_the_default_config_is_valid_and_every_schema_default_equals_it():
    check_schema(CONFIG, SCHEMA)
    for key, schema in SCHEMA["properties"].items():
        if "default" in schema and key not in ("compare", "augmentation", "pretrain"):
            assert CONFIG[key] == schema["default"], key
    for key, schema in SCHEMA["properties"]["augmentation"]["properties"].items():
        assert CONFIG["augmentation"][key] == schema["default"], key
    patchcore = SCHEMA["properties"]["detectors"]["additionalProperties"]["properties"]
    for key, value in CONFIG["detectors"]["patchcore"].items():
        assert patchcore[key].get("default", value) == value, key


def test_no_object_of_the_schema_lets_an_unknown_key_pass():
    def objects(node, path="$"):
        if isinstance(node, dict):
            if node.get("type") == "object" or "properties" in node:
                yield path, node
            for key, value in node.items():
                if key not in ("if", "then"):
                    yield from objects(value, f"{path}.{key}")

    for path, node in objects(SCHEMA):
        assert "additionalProperties" in node, path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detecter": "patchcore"}, "unknown key 'detecter' (did you mean 'detector'?)"),
        ({"threshold": "f2"}, "'f2' is not one of f1, youden"),
        ({"max_fpr": 3}, "max_fpr"),
        ({"shards": 0}, "shards"),
        ({"dataset": "../x"}, "dataset"),
        ({"detectors": {"p": {"method": "patchcore", "coreset": 0.1}}}, "detectors.p: unknown key 'coreset'"),
        ({"segmenters": {"s": {"method": "sam2.1"}}}, "'model' is a required property"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_place(change, message):
    with pytest.raises(UserError) as error:
        check_schema(changed(**change), SCHEMA)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_auto_follows_the_annotations():
    with_masks, without = resolve_runs(CONFIG, True), resolve_runs(changed(compare=[]), False)
    assert with_masks[0] == Run("demo", "template", "zero_out", "patchcore")
    assert without == [Run("demo", "none", "none", "patchcore")]


def test_comparisons_inherit_and_appear_once():
    runs = resolve_runs(changed(compare=[{"detector": "pixel_difference"}, {"segmenter": "template"}]), True)
    assert runs == [
        Run("demo", "template", "zero_out", "patchcore"),
        Run("demo", "template", "zero_out", "pixel_difference"),
    ]
    assert runs[1].folder == "results/demo/template/zero_out/pixel_difference"


@pytest.mark.parametrize(
    ("change", "annotated", "message"),
    [
        ({"segmenter": "templat"}, True, "did you mean 'template'?"),
        ({"dataset": "hawk"}, True, "no entry 'hawk' in datasets"),
        ({"detector": "x"}, True, "no entry 'x' in detectors"),
        ({"segmenter": "template"}, False, "add annotations.json"),
        ({"segmenter": "none", "isolation": "crop"}, True, "needs masks of the part"),
        ({"compare": [{"isolation": "zero"}]}, True, "no entry 'zero' in isolations"),
    ],
)
def test_a_choice_that_cannot_work_is_told_before_anything_runs(change, annotated, message):
    with pytest.raises(UserError) as error:
        resolve_runs(changed(**change), annotated)
    assert message in str(error.value)


def test_what_the_command_line_gives_as_text_gets_its_type():
    given = {
        "max_fpr": "0.1", "shards": "4", "allow_downloads": "true", "folds": "loo", "seed": 3,
        "augmentation": {"copies": "2", "rotate": "2.5"},
        "detectors": {"p": {"method": "patchcore", "image_size": "256", "weights": "null"}},
        "compare": [{"segmenter": "1"}],
        "segmenters": {"s": {"method": "none", "checkpoint": "12"}},
    }  # fmt: skip
    result = typed(given, SCHEMA)
    assert result["max_fpr"] == 0.1 and result["shards"] == 4 and result["allow_downloads"] is True
    assert result["folds"] == "loo" and typed({"folds": "5"}, SCHEMA) == {"folds": 5}
    assert result["augmentation"] == {"copies": 2, "rotate": 2.5} and result["compare"] == [{"segmenter": "1"}]
    assert result["detectors"]["p"] == {
        "method": "patchcore", "image_size": 256, "weights": None,
    }  # fmt: skip
    assert result["segmenters"]["s"]["checkpoint"] == "12"
    assert typed({"shards": "many"}, SCHEMA) == {"shards": "many"}
