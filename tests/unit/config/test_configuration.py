import copy
import dataclasses
from pathlib import Path

import pytest
import yaml
from defectflow.config.configuration import (
    Run,
    checked,
    labels_needed,
    rendered_labels,
    resolve_runs,
    sections,
    shard_count,
    threshold_of,
)
from defectflow.config.run_settings import RunSettings
from defectflow.config.values import ABSENT, REQUIRED
from defectflow.core.files import UserError
from defectflow.decision.chosen_threshold import calibrate
from defectflow.decision.threshold_strategies import STRATEGIES

ROOT = Path(__file__).parents[3]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
SECTIONS = ("augmentation", "regions", "drawing")


def changed(**keys) -> dict:
    return copy.deepcopy(CONFIG) | keys


def test_the_default_config_is_valid_and_what_it_shows_is_the_default():
    complete = checked(CONFIG).config
    for field in dataclasses.fields(RunSettings):
        if field.name != "compare" and field.metadata["default"] is not REQUIRED:
            assert CONFIG[field.name] == field.metadata["default"], field.name
    for section in SECTIONS:
        kind = sections()[section]
        absent = {field.name for field in dataclasses.fields(kind) if field.metadata["default"] is ABSENT}
        defaults = dataclasses.asdict(kind())
        assert CONFIG[section] == {key: value for key, value in defaults.items() if key not in absent}, section
    kinds = dataclasses.asdict(sections()["kinds"]())
    assert CONFIG["kinds"] == {key: kinds[key] for key in CONFIG["kinds"]}
    shown = CONFIG["detectors"]["patchcore"]
    assert {key: complete["detectors"]["patchcore"][key] for key in shown} == shown
    unread = {"neighbours", "density_neighbours", "top_fraction"}  # by some values of others: given, they are refused
    assert complete["detectors"]["patchcore"].keys() - shown.keys() == unread
    whole = dataclasses.asdict(sections()["detectors"].classes["patchcore"]())
    assert {key: whole[key] for key in CONFIG["detectors"]["patchcore"] if key != "method"} == {
        key: value for key, value in CONFIG["detectors"]["patchcore"].items() if key != "method"
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pictures": {}}, "top level: 'pictures' is called 'drawing' now (rename the key)"),
        ({"detectors": {"p": {"method": "patchcore", "bank": "float16"}}}, "'bank' is called 'bank_dtype' now"),
        ({"detecter": "patchcore"}, "unknown key 'detecter' (did you mean 'detector'?)"),
        ({"threshold": "f2"}, "'f2' is not one of f1_adaptive, youden"),
        ({"threshold": "youden", "threshold_options": {"max_fpr": 3}}, "threshold_options.max_fpr: 3 is greater"),
        ({"threshold_options": {"alfa": 0.1}}, "threshold_options: 'alfa' is not an option of auto"),
        ({"threshold": "conformal", "threshold_options": {"alpha": 0}}, "threshold_options.alpha: 0 must be above 0"),
        ({"review": {"max_fpr": 0.1}}, "review: 'max_fnr' is a required property"),
        ({"review": 0.1}, "review: 0.1 is not of type"),
        ({"shards": 0}, "shards"),
        ({"dataset": "../x"}, "dataset"),
        ({"detectors": {"p": {"method": "patchcore", "coreset": 0.1}}}, "detectors.p: unknown key 'coreset'"),
        ({"segmenters": {"s": {"method": "sam2.1"}}}, "'model' is a required property"),
        ({"segmenters": {"s": {"method": "sam2.1", "model": "xyz"}}}, "'xyz' is not one of nano"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_place(change, message):
    with pytest.raises(UserError) as error:
        checked(changed(**change))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detectors": {"p": {"method": "padim", "coreset_max": 9}}}, "detectors.p: method padim does not read 'core"),
        ({"detectors": {"p": {"method": "pixel_difference", "backbone": "nonsense"}}}, "does not read 'backbone'"),
        ({"detectors": {"p": {"method": "centroid", "score": "max"}}}, "it reads: method, backbone, weights"),
        ({"detectors": {"p": {"method": "patchcore", "dimensions": 9}}}, "does not read 'dimensions'"),
        ({"segmenters": {"s": {"method": "template", "checkpoint": "x.pt"}}}, "template does not read 'checkpoint'"),
        (
            {"segmenters": {"s": {"method": "sam2.1", "model": "nano", "engine": "official", "augmentations": 2}}},
            "segmenters.s: engine official does not read 'augmentations'",
        ),
        (
            {"detectors": {"p": {"method": "patchcore", "top_fraction": 0.1}}},
            "detectors.p: 'top_fraction' is only read",
        ),
        ({"detectors": {"p": {"method": "patchcore", "score": "percentile", "neighbours": 3}}}, "'neighbours' is only"),
        ({"detectors": {"p": {"method": "patchcore", "density_neighbours": 3}}}, "'density_neighbours' is only read"),
        ({"detectors": {"p": {"method": "vae", "top_fraction": 0.1}}}, "'top_fraction' is only read with score: top_k"),
        ({"isolations": {"i": {"background": "zero", "margin": 0.1}}}, "isolations.i: 'margin' is only read with crop"),
        ({"isolations": {"i": {"background": "zero", "normalise": ["clahe", "clahe"]}}}, "isolations.i.normalise"),
        ({"isolations": {"i": {"background": "keep", "dilate": 3}}}, "isolations.i: 'dilate' is not read if"),
    ],
)
def test_a_key_that_the_method_does_not_read_is_refused(change, message):
    with pytest.raises(UserError) as error:
        checked(changed(**change))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_page_on_verdicts_has_every_strategy_and_option():
    page = (ROOT / "docs/verdicts.md").read_text()
    for name, cls in STRATEGIES.classes.items():
        assert f"`{name}`" in page and all(f"`{{{option}: " in page for option in cls.own_keys())


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        ("f1_adaptive", {"max_fpr": 0.1}, "'max_fpr' is not an option of f1_adaptive (it takes none)"),
        ("youden", {"alpha": 0.1}, "'alpha' is not an option of youden (it takes max_fpr and max_fnr)"),
        ("conformal", {}, "conformal needs alpha (set threshold_options: {alpha: ...})"),
        ("target_recall", {"max_fnr": 0.1}, "'max_fnr' is not an option of target_recall (it takes recall)"),
    ],
)
def test_a_wrong_or_missing_option_is_told_before_anything_runs(strategy, options, message):
    with pytest.raises(UserError) as error:
        checked(changed(threshold=strategy, threshold_options=options))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"threshold": "conformal"}, "detectors.d.threshold_options: conformal needs alpha"),
        ({"threshold": "youden", "threshold_options": {"sigma": 3}}, "detectors.d.threshold_options: 'sigma' is no"),
        ({"threshold_options": {"sigma": 3}}, "detectors.d: threshold_options without threshold"),
    ],
)
def test_a_wrong_threshold_of_a_detector_is_told(entry, message):
    with pytest.raises(UserError) as error:
        checked(changed(detectors={"d": {"method": "centroid"} | entry}))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_detector_may_have_a_threshold_of_its_own():
    config = changed(threshold="conformal", threshold_options={"alpha": 0.1})
    assert threshold_of(config, "centroid") == ("normal_percentile", {"percentile": 99.5})
    assert threshold_of(config, "patchcore") == ("conformal", {"alpha": 0.1})
    assert labels_needed(config)["good"] == 9
    alone = config | {"detector": "centroid", "compare": []}
    assert labels_needed(alone)["good"] == 1
    assert labels_needed(alone | {"compare": [{"detector": "patchcore"}]})["good"] == 9


@pytest.mark.parametrize("options", [{}, {"max_fpr": 0.1}, {"max_fnr": 0.1}, {"max_fpr": 0.1, "max_fnr": 0.1}])
def test_the_options_of_youden_may_be_left_out(options):
    checked(changed(threshold="youden", threshold_options=options))


@pytest.mark.parametrize(
    ("strategy", "options", "review"),
    [
        ("f1_adaptive", {}, False), ("f1_adaptive", {}, True), ("youden", {}, False), ("youden", {"max_fnr": 0}, False),
        ("youden", {"max_fpr": 0.5}, False), ("max_fpr", {"max_fpr": 0.1}, False), ("max_fnr", {"max_fnr": 0.1}, False),
        ("target_recall", {"recall": 1}, False), ("normal_percentile", {"percentile": 99.5}, True),
        ("normal_sigma", {"sigma": 3}, False), ("conformal", {"alpha": 0.3}, False),
        ("cost", {"miss": 5, "false_alarm": 1, "bad_share": 0.1}, False), ("fixed", {"value": 3}, False),
        ("conformal", {"alpha": 0.1}, True),
    ],
)  # fmt: skip
def test_the_labels_needed_are_those_that_calibration_needs(strategy, options, review):
    band = {"max_fpr": 0.1, "max_fnr": 0.1} if review else None
    needed = labels_needed(changed(threshold=strategy, threshold_options=options, review=band))

    def works(good: int, bad: int) -> bool:
        labels = [0] * good + [1] * bad
        try:
            for name, given in ((strategy, options), *((key, {key: 0.1}) for key in band or ())):
                calibrate(range(len(labels)), labels, name, **given)
        except ValueError:
            return False
        return True

    assert works(max(needed["good"], 1), max(needed["bad"], 1)) and works(max(needed["good"], 2), needed["bad"])
    for side in needed:
        if needed[side]:
            assert not works(**({"good": 20, "bad": 5} | {side: needed[side] - 1}))


@pytest.mark.parametrize(("views", "defects"), [(57, 24), (6, 0), (33, 5)])
def test_the_labels_of_the_rendered_set_are_those_that_the_renderer_gives(views, defects):
    from defectflow.demo.render_demo import plan

    labels = [view.label for view in plan(views, defects, seed=3)]
    expected = {"good": labels.count("0"), "bad": labels.count("1")}
    assert rendered_labels({"rendered": {"views": views, "defects": defects}}) == expected


def test_auto_follows_the_annotations():
    with_masks, without = resolve_runs(CONFIG, True), resolve_runs(changed(compare=[]), False)
    assert with_masks[0] == Run("demo", "template", "crop", "patchcore")
    assert without == [Run("demo", "found", "zero_out", "patchcore")]


@pytest.mark.parametrize("outlined", [True, False])
def test_a_photograph_that_is_the_part_needs_no_masks(outlined):
    config = changed(compare=[])
    config["datasets"] = {"demo": config["datasets"]["demo"] | {"part": "whole"}}
    assert resolve_runs(config, outlined) == [Run("demo", "none", "none", "patchcore")]


@pytest.mark.parametrize("outlined", [True, False])
@pytest.mark.parametrize(("isolation", "resolved"), [("auto", "zero_out"), ("tight", "tight"), ("none", "none")])
def test_a_prompted_network_needs_no_outlines(outlined, isolation, resolved):
    runs = resolve_runs(changed(segmenter="canister", isolation=isolation, compare=[]), outlined)
    assert runs == [Run("demo", "canister", resolved, "patchcore")]


@pytest.mark.parametrize("area", [[0.02], [0.9, 0.1], [0.1, 0.2, 0.3], [0.5, 1.5]])
def test_limits_of_an_area_are_two_shares(area):
    entry = {"method": "prompted", "model": "nano", "area": area}
    with pytest.raises(UserError, match=r"segmenters\.s\.area: "):
        checked(changed(segmenters={"s": entry}))


def test_comparisons_inherit_and_appear_once():
    runs = resolve_runs(changed(compare=[{"detector": "pixel_difference"}, {"segmenter": "template"}]), True)
    assert runs == [
        Run("demo", "template", "crop", "patchcore"),
        Run("demo", "template", "crop", "pixel_difference"),
    ]
    assert runs[1].folder == "results/demo/template/crop/pixel_difference"


@pytest.mark.parametrize(
    ("change", "annotated", "message"),
    [
        ({"segmenter": "templat"}, True, "did you mean 'template'?"),
        ({"dataset": "hawk"}, True, "no entry 'hawk' in datasets"),
        ({"detector": "x"}, True, "no entry 'x' in detectors"),
        ({"segmenter": "template"}, False, "segmenter=none isolation=none"),
        ({"segmenter": "none", "isolation": "crop"}, True, "needs masks of the part"),
        ({"compare": [{"isolation": "zero"}]}, True, "no entry 'zero' in isolations"),
        ({"segmenter": "canister", "isolation": "crop"}, False, "set isolation: zero_out, or tight"),
    ],
)
def test_a_choice_that_cannot_work_is_told_before_anything_runs(change, annotated, message):
    with pytest.raises(UserError) as error:
        resolve_runs(changed(**change), annotated)
    assert message in str(error.value)


def test_what_the_command_line_gives_as_text_gets_its_type():
    given = changed(
        threshold="max_fpr", threshold_options={"max_fpr": "0.1"}, review="null", shards="4", allow_downloads="true",
        folds="5", augmentation={"copies": "2", "rotate": "2.5", "robustness": ["1", "2"]},
        detectors={"p": {"method": "patchcore", "image_size": "256", "weights": "null"}},
        compare=[{"segmenter": "1"}], segmenters={"s": {"method": "sam2.1", "model": "nano", "checkpoint": "12"}},
        datasets={"d": {"path": "1", "bit_depth": "12"}, "r": {"rendered": {"views": "9"}}},
    )  # fmt: skip
    result = checked(given).config
    assert result["threshold_options"] == {"max_fpr": 0.1} and result["review"] is None
    assert result["shards"] == 4 and result["allow_downloads"] is True and result["folds"] == 5
    assert result["augmentation"]["copies"] == 2 and result["augmentation"]["robustness"] == [1, 2]
    assert result["compare"] == [{"segmenter": "1"}] and result["segmenters"]["s"]["checkpoint"] == "12"
    assert result["detectors"]["p"]["image_size"] == 256 and result["detectors"]["p"]["weights"] is None
    assert result["datasets"]["d"] == {"path": "1", "bit_depth": 12, "part": "auto", "unlabelled": "auto"}
    assert result["datasets"]["r"]["rendered"] == {"views": 9, "defects": 24, "kinds": 6, "size": 512}
    with pytest.raises(UserError, match="shards: 'many' is not one of auto or integer"):
        checked(changed(shards="many"))
    review = checked(changed(review={"max_fpr": "0", "max_fnr": ".5"})).config["review"]
    assert review == {"max_fpr": 0, "max_fnr": 0.5}


@pytest.mark.parametrize(
    ("images", "shards"), [(0, 1), (100, 1), (101, 2), (4000, 2), (4001, 4), (16_000, 8), (16_001, 16), (100_000, 64)]
)
def test_shards_double_when_the_images_of_one_pass_two_thousand(images, shards):
    assert shard_count("auto", images) == shards and images / shards <= 2000


def test_a_number_of_shards_is_kept_unless_a_folder_would_get_too_many_files():
    assert shard_count(25, 100_000) == 25
    with pytest.raises(UserError, match=r"50,000 images into a folder .*50 or more"):
        shard_count(2, 100_000)


def test_a_fixed_threshold_is_for_the_run_that_the_config_asks_for_first():
    config = changed(threshold="fixed", threshold_options={"value": 1.5})
    assert threshold_of(config, "patchcore") == ("fixed", {"value": 1.5})
    assert threshold_of(config, "patchcore", main=False) == ("auto", {})
    assert threshold_of(config, "centroid", main=False) == ("normal_percentile", {"percentile": 99.5})
