import json

import inspection_set
import numpy as np
import pandas as pd
import pytest
from defectflow.core.anomaly_maps import load_maps, save_maps
from defectflow.core.files import UserError, read_json, write_json
from defectflow.core.tables import MANIFEST, PREDICTIONS, SCORES, SPLITS, index_of, read_table, write_table
from defectflow.decision import chosen_threshold
from defectflow.decision.decisions import SCORE, SPLIT, assign_verdicts, file_name, gather, is_evaluated, review_figures
from defectflow.evaluation import cautions, claims, evaluate
from sklearn.metrics import roc_auc_score

FIGURES = [
    "calibration_curve.png", "confusion_matrix.png", "precision_recall.png", "roc.png", "score_histogram.png",
    "scores_by_kind.png",
]  # fmt: skip
OF_LABELLED = {"calibration_curve.png", "scores_by_kind.png"}  # left out where no image is labelled


def run(data, out, *more):
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(out, *more)))
    return json.loads((out / "metrics.json").read_text()), read_table(out / "predictions.csv", PREDICTIONS)


def edit(path, columns, change):
    table = read_table(path, columns)
    write_table(path, change(table), columns)


def relabel(data, label):
    """Give every image this label, in manifest and splits."""
    for path, columns in ((data.manifest, MANIFEST), (data.splits, SPLITS)):
        edit(path, columns, lambda t: t.assign(label=pd.array(np.where(t["label"].notna(), label, np.nan), "Int64")))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A set with everything in it, evaluated once."""
    root = tmp_path_factory.mktemp("full")
    data = inspection_set.make(root / "set", group_out=True, perturbed=True)
    write_json(root / "prior.json", {"template": {"iou_mean": 0.98, "n": 9}, "long": list(range(100))})
    write_json(root / "fit.json", {"trained": False})
    flags = ["--segmentation", str(root / "prior.json"), "--fit", str(root / "fit.json")]
    return data, root, flags, *run(data, root / "out", *flags)


def test_top_level_is_what_the_predictions_say(full):
    *_, metrics, predictions = full
    known = predictions[predictions["label"].notna()]
    assert metrics["protocol"]["name"] == "kfold" and metrics["protocol"]["n_folds"] == 4
    assert metrics["n_samples"] == len(known) == 14
    assert metrics["accuracy"] == pytest.approx((known["label"] == known["predicted_label"]).mean(), abs=1e-5)
    assert metrics["auroc"] == pytest.approx(roc_auc_score(known["label"], known["raw_score"]), abs=1e-5)
    assert 0.5 < metrics["auroc"] < 1
    found = known[known["predicted_label"] == 1]
    assert metrics["precision"] == pytest.approx(found["label"].mean(), abs=1e-5)
    assert metrics["recall"] == pytest.approx(found["label"].sum() / known["label"].sum(), abs=1e-5)
    assert metrics["threshold"]["strategy"] == "f1_adaptive" and metrics["threshold"]["options"] == {}
    assert metrics["review"] is None and predictions[["review", "review_low", "review_high"]].isna().all(axis=None)


def test_every_image_is_listed_and_judged_by_its_own_threshold(full):
    data, *_, metrics, predictions = full
    assert predictions["filename"].tolist() == sorted(predictions["filename"])
    assert len(predictions) == len(read_table(data.manifest, MANIFEST)) == 16
    assert ((predictions["raw_score"] >= predictions["threshold"]) == (predictions["predicted_label"] == 1)).all()
    assert ((predictions["pred_score"] >= 0.5) == (predictions["predicted_label"] == 1)).all()
    unlabelled = predictions[predictions["label"].isna()]
    assert (unlabelled["threshold"] == metrics["threshold"]["value"]).all() and (
        unlabelled["split"] == "unlabelled"
    ).all()
    assert predictions.set_index("filename").loc["good/001.png", ["mask_doubtful", "mask_reason"]].tolist() == [
        1,
        "area off",
    ]


def test_thresholds_are_nested(full):
    data, *_, predictions = full
    splits = read_table(data.splits, SPLITS).set_index("image_id")
    known = predictions[predictions["label"].notna()].set_index("image_id")
    fold = splits.loc[known.index, "fold"]
    for name in set(fold):
        others = known[fold != name]
        expected = chosen_threshold.calibrate(others["raw_score"].to_numpy(), others["label"].to_numpy()).value
        assert known.loc[fold == name, "threshold"].to_numpy() == pytest.approx(expected, rel=1e-8)


def test_the_other_sections(full):
    *_, metrics, _ = full
    assert set(metrics["by_defect"]) == {"hole", "scratch"}
    assert sum(entry["n"] for entry in metrics["by_defect"].values()) == 6
    assert metrics["pixel"]["n_bad_with_mask"] == 6 and metrics["pixel"]["full_frame"]["n_components"] == 6
    assert metrics["pixel"]["in_part"]["auroc"] > 0.9
    assert metrics["pixel"]["in_part"]["good_pixels"] < metrics["pixel"]["full_frame"]["good_pixels"]
    assert metrics["pixel"]["map_threshold"]["rule"] == "largest pixel F1"
    for part in ("full_frame", "in_part"):
        found = metrics["pixel"][part]
        assert 0 < found["f1"] <= found["f1_max"] + 1e-6 and found["au_pro_0_05"] < found["au_pro"]
    # group_out_score is 0.9 x raw_score in this set: the same order.
    assert metrics["image"]["leave_group_out"]["auroc"] == metrics["auroc"]
    low, high = metrics["confidence_intervals"]["auroc"]
    assert low < metrics["auroc"] <= high
    assert metrics["baseline"] == {"majority_class": "good", "accuracy": 0.571429, "f1_all_called_bad": 0.6}
    assert metrics["robustness"]["n_copies"] == 14 and 0 <= metrics["robustness"]["changed_verdicts"] < 0.5
    assert metrics["segmentation"]["prior"] == {"template": {"iou_mean": 0.98, "n": 9}}
    assert metrics["segmentation"]["masks"]["doubtful"] == ["good__001"]


def test_warnings_are_honest(full):
    *_, metrics, _ = full
    text = " ".join(metrics["warnings"])
    assert "not trained" in text
    assert "8 good, 6 bad" in text
    assert "come from 3 groups" in text and "with whole groups left out" in text
    assert "Doubtful: 1 mask (good__001)" in text


def test_labels_the_wrong_way_round_are_asked_about_and_chance_is_not(tmp_path):
    data = inspection_set.make(tmp_path / "set", good=10, bad=10, overlap=False)
    for path, columns in ((data.manifest, MANIFEST), (data.splits, SPLITS)):
        edit(path, columns, lambda t: t.assign(label=(1 - t["label"]).astype("Int64")))
    metrics, _ = run(data, tmp_path / "out")
    assert metrics["auroc"] < 0.1 and metrics["confidence_intervals"]["auroc"][1] < 0.5
    assert "are the labels swapped" in metrics["warnings"][0]
    assert "cannot be distinguished from chance" not in " ".join(metrics["warnings"])


def test_an_auroc_of_one_has_an_interval_with_a_width(tmp_path):
    metrics, _ = run(inspection_set.make(tmp_path / "set", good=6, bad=6, overlap=False), tmp_path / "out")
    low, high = metrics["confidence_intervals"]["auroc"]
    assert metrics["auroc"] == 1.0 == high and 0.5 < low < 0.8
    text = " ".join(metrics["warnings"])
    assert f"anywhere from {low:.2f} to 1.00" in text and "no bootstrap interval" not in text
    assert "chance" not in text


def test_without_masks_a_background_that_differs_is_told_first(tmp_path):
    data = inspection_set.make(tmp_path / "set")  # the noise behind the disc is another one in each picture
    masked, _ = run(data, tmp_path / "masked")
    assert masked["background"] is None
    data.masks.clear()
    grid = np.ones((16, 16), np.float32)
    grid[3:6, 0:3] = 9  # hot in the corner of the photograph
    for path in data.maps:
        maps = load_maps([path])
        save_maps(path, {name: (grid, maps[name].affine) for name in list(maps)}, (128, 128))
    metrics, _ = run(data, tmp_path / "out")
    assert metrics["background"]["border_differs"] and metrics["background"]["heat_near_border"] > 0.4
    assert metrics["background"]["warning"] == metrics["warnings"][0] == cautions.headlines(metrics)[0]
    assert "background" in metrics["warnings"][0]


def test_a_failed_sam_is_told():
    train = {"sam2.1": {"iou_mean": 0.9}, "template": {"iou_mean": 0.97}, "use": "template"}
    (said,) = cautions._mask_warnings({"train": train})
    assert "0.900" in said and "'template' (0.970)" in said
    assert cautions._mask_warnings({"train": {**train, "use": "sam2.1"}}) == []


def test_failing_registration_is_told_with_the_remedy():
    prior = {"template": {"iou_mean": 0.58}, "registration": {"decides": False}}
    (said,) = cautions._mask_warnings({"prior": prior})
    assert "0.580" in said and "segmenter=sam2.1-nano" in said
    assert cautions._mask_warnings({"prior": prior | {"registration": {"decides": True}}}) == []


def test_masks_that_rest_on_one_outline_say_so():
    spread = {"outlines": 1, "photographs": 56, "found": 55, "not_found": ["x"]}
    spread |= {"agreement_mean": 0.997, "agreement_min": 0.993}
    prior = {"template": {"iou_mean": None}, "registration": {"decides": False}, "propagation": spread}
    (said,) = cautions._mask_warnings({"prior": prior})
    assert "rest on one outline" in said and "in 55 of 56 other photographs, not in x" in said
    assert "IoU 0.997, at least 0.993" in said and "no held-out figure says" in said
    two = prior | {"template": {"iou_mean": 0.91}, "propagation": spread | {"outlines": 2, "not_found": []}}
    (said,) = cautions._mask_warnings({"prior": two})
    assert "rest on 2 outlines" in said and "the IoU is 0.910" in said and "not in" not in said


def test_masks_of_a_prompted_network_are_said_to_be_unmeasured():
    for source in ("sam_onnx", "prompted"):
        (said,) = cautions._mask_warnings({"masks": {"n": 5, "sources": {source: 5}}})
        assert "No outline was used" in said and "parts.png" in said
    assert cautions._mask_warnings({"masks": {"n": 5, "sources": {"template": 5}}}) == []


def test_a_part_that_was_found_says_what_is_not_judged():
    found = {"use": "found", "trust": 0.923, "reason": "", "said": ""}
    (said,) = cautions._mask_warnings({"found": {"found": found}})
    assert "No outline was drawn" in said and "(trust 0.92)" in said
    assert "What lies outside of it is not judged, a missing piece too" in said
    (said,) = cautions._mask_warnings({"found": {"found": found | {"completed": True}}})
    assert "filled in" in said
    assert cautions._mask_warnings({"found": {"found": found | {"use": "whole", "said": "..."}}}) == []


def test_pixels_need_no_training():
    assert cautions.untrained({"trained": False, "backbone": "resnet18"})
    assert not any(cautions.untrained({"trained": False, "backbone": name}) for name in ("pixels", "picture"))


def test_two_runs_are_byte_identical(full):
    data, root, flags, *_ = full
    run(data, root / "again", *flags)
    for name in ["metrics.json", "predictions.csv", "robustness.csv", *(f"figures/{figure}" for figure in FIGURES)]:
        assert (root / "again" / name).read_bytes() == (root / "out" / name).read_bytes(), name


def test_the_order_of_shards_does_not_matter(full):
    data, root, flags, *_ = full
    turned = inspection_set.InspectionSet(
        data.root, data.manifest, data.splits, data.scores[::-1], data.maps[::-1], data.masks[::-1]
    )
    run(turned, root / "turned", *flags)
    for name in ("metrics.json", "predictions.csv"):
        assert (root / "turned" / name).read_bytes() == (root / "out" / name).read_bytes()


def test_an_unlabelled_image_changes_no_metric(tmp_path):
    data = inspection_set.make(tmp_path / "set")
    before, _ = run(data, tmp_path / "a")
    for path in data.scores:
        edit(path, SCORES, lambda t: t[~t["image_id"].str.startswith("new")])
    after, predictions = run(data, tmp_path / "b")
    warned = [w for w in after.pop("warnings") if not w.startswith("No score")]
    assert warned == before.pop("warnings")
    assert after == before
    assert predictions.loc[predictions["filename"] == "new/000.png", "pred_score"].isna().all()


def test_good_images_only(tmp_path):
    data = inspection_set.make(tmp_path / "set", bad=0)
    metrics, predictions = run(data, tmp_path / "out")
    assert metrics["auroc"] is None and metrics["recall"] is None and metrics["by_defect"] == {}
    assert metrics["threshold"]["value"] > predictions.loc[predictions["label"] == 0, "raw_score"].max()
    assert "No labelled bad image" in metrics["warnings"][0]


def test_a_good_image_that_stands_out_is_named_and_sets_no_threshold(tmp_path):
    data = inspection_set.make(tmp_path / "set", good=20, bad=0, overlap=False)
    for path in data.scores:
        edit(path, SCORES, lambda t: t.assign(raw_score=t["raw_score"].where(t["image_id"] != "good__007", 50.0)))
    metrics, predictions = run(data, tmp_path / "out")
    found = metrics["threshold"]["good_only"]
    assert found["filenames"] == ["good/007.png"] and found["set_aside"] and found["with_them"] >= 50
    others = predictions.loc[(predictions["label"] == 0) & (predictions["filename"] != "good/007.png"), "raw_score"]
    assert metrics["threshold"]["value"] == pytest.approx(others.max()) and metrics["threshold"]["value"] > others.max()
    assert "good/007.png (50) stands out" in metrics["warnings"][0]


def test_bad_images_only(tmp_path):
    data = inspection_set.make(tmp_path / "set")
    relabel(data, 1)
    metrics, _ = run(data, tmp_path / "out")
    assert metrics["auroc"] is None and metrics["image"]["false_positive_rate"] is None
    assert "false positive rate is unknown" in metrics["warnings"][0]


def test_no_label_at_all(tmp_path):
    data = inspection_set.make(tmp_path / "set", good=0, bad=0, unlabelled=3)
    metrics, predictions = run(data, tmp_path / "out")
    assert metrics["n_samples"] == 0 and metrics["threshold"]["value"] is None
    assert {metrics[key] for key in ("accuracy", "precision", "recall", "f1", "auroc")} == {None}
    assert len(predictions) == 3 and predictions["raw_score"].notna().all() and predictions["pred_score"].isna().all()
    assert "label some good and bad images" in metrics["warnings"][0]
    assert "Doubtful: 1 mask (" in " ".join(metrics["warnings"])  # true of the photographs, whatever their labels
    assert sorted(p.name for p in (tmp_path / "out/figures").iterdir()) == sorted(set(FIGURES) - OF_LABELLED)


def test_without_ground_truth_and_masks(tmp_path):
    data = inspection_set.make(tmp_path / "set", ground_truth=False)
    data.masks.clear()
    args = [word for word in data.evaluate_args(tmp_path / "out") if word != "--masks"]
    evaluate.main(evaluate.build_parser().parse_args(args))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["pixel"]["full_frame"] is None and metrics["pixel"]["map_threshold"]["value"] > 0
    assert metrics["robustness"] is None


def test_youden_with_a_cap(tmp_path):
    data = inspection_set.make(tmp_path / "set", good=20, bad=10)
    metrics, predictions = run(data, tmp_path / "out", "--threshold", "youden", "max_fpr=0")
    good = predictions[predictions["label"] == 0]
    assert (good["raw_score"] < metrics["threshold"]["value"]).all()
    assert metrics["threshold"]["options"] == {"max_fpr": 0}
    assert any("max_fpr" in text for text in metrics["warnings"]) == (metrics["image"]["false_positive_rate"] > 0)


def scored(scores, labels, folds):
    """A gathered table of labelled images, as far as assign_verdicts reads it."""
    columns = {"label": labels, "raw_score": np.asarray(scores, float), "fold": folds, "detection": "fold"}
    return pd.DataFrame(columns).assign(image_id=[f"i{k}" for k in range(len(labels))])


STRATEGIES = [
    ("f1_adaptive", {}),
    ("youden", {"max_fpr": 0.5}),
    ("max_fpr", {"max_fpr": 0.1}),
    ("max_fnr", {"max_fnr": 0.1}),
    ("target_recall", {"recall": 0.9}),
    ("normal_percentile", {"percentile": 99.5}),
    ("normal_sigma", {"sigma": 3}),
    ("conformal", {"alpha": 0.1}),
    ("tail", {"alpha": 0.1}),
    ("cost", {"miss": 20, "false_alarm": 1, "bad_share": 0.1}),
    ("fixed", {"value": 0.7}),
]


@pytest.mark.parametrize("strategy, options", STRATEGIES)
def test_no_label_is_judged_with_its_own_help(strategy, options):
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1], [16, 8])
    table = scored(rng.normal(labels, 1.0), labels, [str(k % 4) for k in range(24)])
    review = {"max_fpr": 0.1, "max_fnr": 0.1}
    before = assign_verdicts(table, strategy, options, review).table
    for k in (0, 5, 20):
        flipped = table.assign(label=np.where(np.arange(24) == k, 1 - labels, labels))
        after = assign_verdicts(flipped, strategy, options, review).table
        same_fold = table["fold"] == str(k % 4)
        for column in ("threshold", "review_low", "review_high", "predicted_label", "review"):
            assert (after.loc[same_fold, column] == before.loc[same_fold, column]).all()


def test_the_review_band_of_a_known_case():
    # Good 0..9, bad 5.5..14.5, in two interleaved folds of equal shape.
    scores = np.concatenate([np.arange(10.0), np.arange(10.0) + 5.5])
    table = scored(scores, np.repeat([0, 1], 10), [str(k // 2 % 2) for k in range(20)])
    review = {"max_fpr": 0.0, "max_fnr": 0.0}
    judged, chosen, band = assign_verdicts(table, "f1_adaptive", {}, review)
    # Certainly bad above every good image, certainly good below every bad one, half-way into the gaps.
    assert band == (5.25, 9.25)
    assert band[0] <= chosen.value <= band[1]
    for fold in ("0", "1"):
        mine, others = judged[judged["fold"] == fold], judged[judged["fold"] != fold]
        good, bad = (others.loc[others["label"] == label, "raw_score"] for label in (0, 1))
        assert (good.max() < mine["review_high"]).all() and (mine["review_low"] <= bad.min()).all()
    inside = (judged["raw_score"] >= judged["review_low"]) & (judged["raw_score"] < judged["review_high"])
    assert (judged["review"] == inside).all() and 0 < inside.sum() < 20
    said = review_figures(judged, band, review, 0)
    left = judged[~inside & (judged["label"] != judged["predicted_label"])]
    assert said["n_reviewed"] == inside.sum() == said["good_reviewed"] + said["bad_reviewed"]
    assert said["share_reviewed"] == inside.mean() and said["errors_left"] == len(left)
    assert said["false_alarms_left"] == (left["label"] == 0).sum()
    assert said["false_positive_rate_left"] == (left["label"] == 0).sum() / 10


@pytest.mark.parametrize("seed", range(5))
def test_the_caps_hold_on_the_images_the_band_was_chosen_on(seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [40, 20])
    scores = rng.normal(1.5 * labels, 1.0)
    unlabelled = pd.DataFrame({"label": np.nan, "raw_score": scores, "fold": "", "detection": "unlabelled"})
    table = pd.concat([scored(scores, labels, [str(k % 5) for k in range(60)]), unlabelled], ignore_index=True)
    judged, _, (low, high) = assign_verdicts(table, "youden", {}, {"max_fpr": 0.05, "max_fnr": 0.1})
    new = judged[60:]  # the same scores, judged by the band chosen on all of them
    assert set(new["review_low"]) == {low} and set(new["review_high"]) == {high} and low < high
    decided = (new["review"] == 0).to_numpy()
    called = (new["predicted_label"] == 1).to_numpy()
    assert (decided & called & (labels == 0)).sum() <= 0.05 * 40
    assert (decided & ~called & (labels == 1)).sum() <= 0.1 * 20
    # To decide one defect more, or one good image more, would break a cap: the band is no wider than it has to be.
    good, bad = scores[labels == 0], scores[labels == 1]
    cut = new["threshold"].iloc[0]
    assert high == cut or (good >= bad[bad < high].max()).sum() > 0.05 * 40
    assert low == cut or (bad <= good[good >= low].min()).sum() > 0.1 * 20


def test_nothing_goes_to_a_person_where_one_threshold_keeps_both_caps():
    table = scored([1, 2, 3, 4, 11, 12, 13, 14], np.repeat([0, 1], 4), list("01010101"))
    judged, chosen, band = assign_verdicts(table, "f1_adaptive", {}, {"max_fpr": 0.0, "max_fnr": 0.0})
    assert band == (chosen.value, chosen.value) and (judged["review"] == 0).all()


def test_the_review_band_in_the_files(tmp_path):
    data = inspection_set.make(tmp_path / "set")
    metrics, predictions = run(data, tmp_path / "out", "--review", "max_fpr=0.1", "max_fnr=0.1")
    review = metrics["review"]
    known = predictions[predictions["label"].notna()]
    assert review["n_reviewed"] == known["review"].sum() > 0 and review["n_images"] == 14
    assert review["max_fpr"] == review["max_fnr"] == 0.1
    new = predictions[predictions["label"].isna()]
    assert (new["review_low"] == review["low"]).all() and (new["review_high"] == review["high"]).all()
    plain, _ = run(data, tmp_path / "plain")
    assert {k: v for k, v in metrics.items() if k not in ("review", "warnings")} == {
        k: v for k, v in plain.items() if k not in ("review", "warnings")
    }  # who looks at an image changes no figure of the verdicts
    first, second = ((tmp_path / out / "figures/score_histogram.png").read_bytes() for out in ("out", "plain"))
    assert first != second


@pytest.mark.parametrize(
    "words, message",
    [
        (["--threshold", "conformal", "alpha=0.05"], r"threshold: conformal: needs at least 19 good images .* are 8"),
        (["--threshold", "conformal", "alpha=0.12"], r"fold \d, whose threshold .* at least 8 good images .* are 6"),
        (["--threshold", "conformal"], "conformal needs alpha"),
        (["--threshold", "best"], "'best' is not one of"),
        (["--threshold", "max_fpr", "max_fpr=2"], "max_fpr: 2.0 is greater"),
        (["--review", "max_fpr=0.1", "max_fpr=0.2"], "--review: 'max_fnr' is a required"),
        (["--review", "max_fpr=0.1", "max_fnr=9"], "--review.max_fnr: 9.0 is greater"),
    ],
)
def test_a_threshold_that_cannot_be_had_is_one_line(tmp_path, words, message):
    data = inspection_set.make(tmp_path / "set")
    with pytest.raises(UserError, match=message) as caught:
        run(data, tmp_path / "out", *words)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_review_band_needs_bad_images(tmp_path):
    data = inspection_set.make(tmp_path / "set", bad=0)
    with pytest.raises(UserError, match="review: max_fnr: needs at least 1 bad images"):
        run(data, tmp_path / "out", "--review", "max_fpr=0.1", "max_fnr=0.1")


def test_what_a_threshold_did_not_keep_is_told():
    image = {"n_good": 12, "false_positive_rate": 0.25, "false_negative_rate": 0.2, "recall": 0.8}
    known = pd.DataFrame({"detection": ["fold"]})

    def said(review=None, **options):
        result = {"threshold": {"strategy": "conformal", "options": options}, "image": image, "review": review}
        return " ".join(cautions._threshold_warnings(known, result))

    assert said() == "" and said(max_fpr=0.25) == "" and said(recall=0.8) == "" and said(percentile=50) == ""
    assert "false positive rate is 0.25, above max_fpr 0.1" in said(max_fpr=0.1)
    assert "false negative rate is 0.20, above max_fnr 0.1" in said(max_fnr=0.1)
    assert "false negative rate is 0.20, above 1 - recall 0.1" in said(recall=0.9)
    assert "above alpha 0.2: it holds on average" in said(alpha=0.2) and "approximation" in said(alpha=0.5)
    assert "On 12 good images the percentile 99.5 is their largest score" in said(percentile=99.5)
    left = {"max_fpr": 0.1, "max_fnr": 0.1, "false_positive_rate_left": 0.0, "false_negative_rate_left": 0.2}
    assert said(left) == (
        "Outside the review band the false negative rate is 0.20, above max_fnr 0.1: it holds on the images that the "
        "band was chosen on."
    )


@pytest.mark.parametrize(("bad", "strategy"), [(0, "tail"), (4, "tail"), (8, "f1_adaptive")])
def test_few_bad_images_leave_the_choice_to_the_good_ones_which_promise_a_rate(tmp_path, bad, strategy):
    data = inspection_set.make(tmp_path / "set", good=14, bad=bad, unlabelled=3)
    told, table = run(data, tmp_path / "run", "--threshold", "auto")
    assert told["threshold"]["strategy"] == strategy
    said = " ".join(claims.proven(told)).replace("\xa0", " ")
    if strategy == "f1_adaptive":
        assert "promise" not in told["threshold"] and "will be called bad" not in said
        return
    promise = told["threshold"]["promise"]
    assert promise["rate"] == 0.05 and promise["interval"][0] < 0.05 < promise["interval"][1]
    assert promise["n_good"] >= 12 and "good photographs alone: about 5 % of new good ones" in said
    assert (table["predicted_label"] == (table["raw_score"] >= table["threshold"])).all()


def test_a_fixed_training_side_is_not_counted(tmp_path):
    data = inspection_set.make(tmp_path / "set")
    edit(data.splits, SPLITS, lambda t: t.assign(detection=np.where(t.index < 3, "train", t["detection"])))
    for path in data.scores:
        edit(path, SCORES, lambda t: t[t["image_id"] != "good__000"])
    metrics, predictions = run(data, tmp_path / "out")
    assert metrics["image"]["n_good"] == 5
    assert "good/000.png" not in predictions["filename"].tolist()  # not scored: a training image
    assert predictions.set_index("filename").loc["good/001.png", "split"] == "train"


@pytest.mark.parametrize(
    "name, columns, change, message",
    [
        ("scores/0.csv", SCORES, lambda t: pd.concat([t, t.head(1)]), r"scores/0\.csv and 1 more: .* occurs twice"),
        ("scores/0.csv", SCORES, lambda t: t.assign(image_id="odd__999"), "occurs twice|not in the manifest"),
        ("scores/1.csv", SCORES, lambda t: t.assign(raw_score=np.nan), "not finite"),
    ],
)
def test_contradictory_tables_are_named(tmp_path, name, columns, change, message):
    data = inspection_set.make(tmp_path / "set")
    edit(tmp_path / "set" / name, columns, change)
    with pytest.raises(UserError, match=message):
        run(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mask_of_another_size_is_named(tmp_path):
    data = inspection_set.make(tmp_path / "set")
    from defectflow.images.read_write import write_png

    write_png(tmp_path / "set/truth/odd__000.png", np.ones((10, 10), bool))
    with pytest.raises(UserError, match=r"odd__000.png: the mask is 10x10 pixels, its photograph 128x96"):
        run(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_single_fold_has_no_threshold_of_its_own():
    table = pd.DataFrame(
        {
            "label": [0, 1, np.nan],
            "detection": ["fold", "fold", "unlabelled"],
            "fold": ["0", "0", ""],
            "raw_score": [1.0, 3, 9],
        }
    )
    judged, overall, _ = assign_verdicts(table, "f1_adaptive")
    assert overall.value == 2.0
    assert judged["predicted_label"].isna().tolist() == [True, True, False]
    assert is_evaluated(judged).tolist() == [True, True, False]


@pytest.mark.parametrize(
    "path, image_id, expected",
    [
        ("data/hawk/images/a b.jpg", "a_b", "a b.jpg"),
        ("data/mvtec/test/crack/000.png", "test__crack__000", "test/crack/000.png"),
        ("/abs/images/x/ü.png", "x___", "x/ü.png"),
        ("images/unrelated.png", "other", "unrelated.png"),
    ],
)
def test_file_name_is_relative_to_the_image_folder(path, image_id, expected):
    assert file_name(path, image_id) == expected


def test_file_name_of_clashing_names():
    from defectflow.listing.image_names import image_ids

    for name, image_id in image_ids(["sub/a.png", "sub/A.png"]).items():
        assert file_name(f"data/{name}", image_id) == name


def test_gather_keeps_an_image_without_a_mask_row(tmp_path):
    data = inspection_set.make(tmp_path / "set")
    manifest, splits, scores = (
        read_table(data.manifest, MANIFEST),
        index_of([data.splits], SPLIT),
        index_of(data.scores, SCORE),
    )
    assert len(gather(manifest, splits, scores, {})) == 16


def test_a_mask_of_an_image_that_ingest_left_out_does_no_harm():
    manifest = pd.DataFrame([dict.fromkeys(MANIFEST, "") | {"image_id": "a", "path": "a.png", "label": 0}])
    masks = dict.fromkeys(("a", "copy_of_a"), (1, 0, ""))
    table = gather(manifest, {"a": ("fold", "0", "")}, {"a": (1.0, None)}, masks)
    assert table["image_id"].tolist() == ["a"] and table["mask_present"].tolist() == [1]


def test_warnings_of_ingest_are_repeated_by_what_they_bear_on():
    found = [{"file": f"{n}.jpg", "text": "turned", "figure": "masks"} for n in range(12)]
    found.append({"file": "notes.txt", "text": "not read", "figure": ""})
    said = cautions.data_warnings({"warnings": found}, bearing=True)
    assert said[0] == "0.jpg: turned" and said[-1].startswith("... and 2 more")
    assert cautions.data_warnings({"warnings": found}, bearing=False) == ["notes.txt: not read"]
    assert cautions.data_warnings({}, bearing=True) == []


def test_without_a_label_photographs_are_judged_and_no_figure_is_claimed(tmp_path):
    data = inspection_set.make(tmp_path / "set", good=20, bad=3, unlabelled=0)
    write_table(data.manifest, read_table(data.manifest).assign(label=""), MANIFEST)
    left_out = tmp_path / "candidates.csv"
    far = read_table(data.splits, SPLITS)["image_id"].tail(2).tolist()
    write_table(left_out, pd.DataFrame({"image_id": far}), ["image_id"])
    args = [*data.evaluate_args(tmp_path / "out"), "--left-out", str(left_out)]
    evaluate.main(evaluate.build_parser().parse_args(args))
    metrics, predictions = read_json(tmp_path / "out/metrics.json"), read_table(tmp_path / "out/predictions.csv")
    assert metrics["auroc"] is None and metrics["image"]["n_good"] == metrics["image"]["n_bad"] == 0
    assert metrics["threshold"]["strategy"] == "normal_percentile" and metrics["threshold"]["value"] > 0
    assert metrics["pixel"]["map_threshold"]["value"] > 0
    assert metrics["warnings"][0] == metrics["assumed"]["said"] and metrics["assumed"]["n_left_out"] == 2
    assert len(predictions) == 23 and predictions["label"].isna().all() and predictions["predicted_label"].notna().all()
    assert set(predictions.loc[predictions["predicted_label"] == 1, "image_id"]) >= set(far)
