"""Splits: groups whole, every side filled, nothing moved by what does not matter."""

import numpy as np
import pandas as pd
import pytest
from defectflow.core.files import UserError
from defectflow.core.tables import MANIFEST, PAIRS, SPLITS, read_table, write_table
from defectflow.data.folds_and_holdout import folds
from defectflow.data.split import build_parser, main, segmentation_split, split, split_annotated

FRACTIONS = (0.6, 0.2, 0.2)


def series(**groups):
    """series(A=3, B=2): image_id -> group."""
    return pd.Series({f"{g}{i:03d}": g for g, n in groups.items() for i in range(n)}, dtype=str)


def own(prefix, count):
    """Images without a group, as split() names them."""
    return pd.Series({f"{prefix}{i:03d}": f"\0{prefix}{i:03d}" for i in range(count)}, dtype=str)


def manifest_of(rows):
    """rows: (image_id, group, label, split)."""
    table = pd.DataFrame(rows, columns=["image_id", "group", "label", "split"])
    return table.reindex(columns=MANIFEST, fill_value="")


def pairs_of(ids, groups=None):
    pairs = [f"sa_{i:06d}" for i in range(len(ids))]
    return pd.DataFrame({"image_id": ids, "group": groups or "", "pair": pairs}).reindex(columns=PAIRS)


def counts(sides):
    return tuple(int((sides == side).sum()) for side in ("train", "val", "test"))


@pytest.mark.parametrize("seed", range(5))
def test_whole_groups_and_no_empty_side(seed):
    groups = series(A=35, B=14, C=7)
    sides = segmentation_split(groups, FRACTIONS, seed)
    assert counts(sides) == (35, 7, 14)
    many = series(**{f"g{i}": 1 + i % 4 for i in range(20)})
    sides = segmentation_split(many, FRACTIONS, seed)
    assert sides.groupby(many).nunique().max() == 1
    assert np.abs(np.array(counts(sides)) / len(many) - FRACTIONS).max() < 0.05
    assert min(counts(segmentation_split(series(A=100, B=1, C=1), FRACTIONS, seed))) == 1


def test_two_groups_test_on_one_never_seen():
    groups = series(A=10, B=4)
    sides = segmentation_split(groups, FRACTIONS, 0)
    assert set(sides[groups == "B"]) == {"test"}
    assert counts(sides) == (8, 2, 4)


@pytest.mark.parametrize(
    ("n", "expected"), [(20, (12, 4, 4)), (3, (1, 1, 1)), (2, (1, 0, 1)), (1, (1, 0, 0)), (0, (0, 0, 0))]
)
def test_one_group_is_cut_by_image(n, expected):
    assert counts(segmentation_split(series(A=n), FRACTIONS, 0)) == expected


def test_images_without_group_are_groups_of_their_own():
    assert counts(segmentation_split(own("x", 20), FRACTIONS, 0)) == (12, 4, 4)


def test_seed_decides_and_unannotated_images_do_not():
    rows = [(f"i{i:02d}", f"g{i // 3}", float(i % 2), "") for i in range(30)]
    annotated = pairs_of([row[0] for row in rows], [row[1] for row in rows])
    table = split(manifest_of(rows), split_annotated(annotated, FRACTIONS, 0), "auto", 0)
    more = [*rows, ("a_new", "g0", np.nan, ""), ("z_new", "new", np.nan, "")]
    again = split(manifest_of(sorted(more)), split_annotated(annotated, FRACTIONS, 0), "auto", 0)
    again = again[~again["image_id"].str.endswith("_new")].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, again)
    other = split(manifest_of(rows), split_annotated(annotated, FRACTIONS, 1), "auto", 1)
    assert (table["segmentation"] != other["segmentation"]).any() and (table["fold"] != other["fold"]).any()


def test_auto_follows_groups_where_there_are_enough():
    good, bad = series(**{f"g{i}": 3 for i in range(6)}), series(g0=2, b1=2, b2=2, b3=2)
    bad.index = [f"bad_{i}" for i in bad.index]
    first, second = folds(good, bad, "auto", 0)
    assert second == {}
    assert len(set(first.values())) == 6 and {first[i] for i in good.index} == set(range(6))
    everyone = pd.concat([good, bad])
    assert pd.Series(first).groupby(everyone).nunique().max() == 1  # a burst is never on both sides
    spread = np.bincount([first[i] for i in bad.index], minlength=6)
    assert spread.max() == 2
    assert len(set(folds(own("x", 57), own("y", 5), "auto", 0)[0].values())) == 5


def test_auto_leaves_one_image_out_where_sessions_are_few():
    good, bad = series(A=9, B=3), series(A=7, C=2)
    bad.index = [f"bad_{i}" for i in bad.index]
    first, second = folds(good, bad, "auto", 0)
    assert sorted(first[i] for i in good.index) == list(range(12))
    assert np.bincount([first[i] for i in bad.index], minlength=12).max() == 1
    assert set(second.values()) == {0, 1}
    assert {second[i] for i in good.index if good[i] == "A"} != {second[i] for i in good.index if good[i] == "B"}
    assert set(second) == set(first)
    many, _ = folds(series(A=900), series(A=20), "auto", 0)
    assert len(set(many.values())) == 5


def test_auto_does_not_learn_from_the_few_images_beside_a_dominating_group():
    ungrouped = pd.Series([f"x{k}" for k in range(4)], index=[f"x{k}" for k in range(4)])
    good = pd.concat([series(day=100), ungrouped])  # five "groups", of 100, 1, 1, 1 and 1 images
    first, second = folds(good, series(b1=2, b2=2), "auto", 0)
    assert np.bincount([first[i] for i in good.index]).tolist() == [21, 21, 21, 21, 20]
    assert len({second[i] for i in good.index if good[i] == "day"}) == 1


def test_explicit_policies():
    good, bad = series(A=5, B=5, C=2), series(D=4)
    first, second = folds(good, bad, "leave_one_out", 0)
    assert len(set(first.values())) == 12 and len(set(second.values())) == 3
    assert folds(own("x", 4), own("y", 2), "leave_one_out", 0)[1] == {}  # no group is cut: nothing to add
    assert folds(series(A=4), series(A=2), "leave_one_out", 0)[1] == {}  # one group cannot be left out
    first, second = folds(good, bad, "leave_group_out", 0)
    assert len(set(first.values())) == 3 and second == {}
    assert len(set(folds(good, bad, "3", 0)[0].values())) == 3
    first, second = folds(good, bad, "4", 0)
    assert len(set(first.values())) == 4 and len(set(second.values())) == 3


@pytest.mark.parametrize("policy", ["auto", "kfold", "leave_one_out", "leave_group_out", "3"])
@pytest.mark.parametrize("good", [series(A=3), series(A=2, B=1, C=5), own("x", 30), series(A=1, B=1)])
def test_every_bank_holds_a_good_image(policy, good):
    try:
        protocols = folds(good, series(A=2, Z=3).rename(lambda i: f"bad_{i}"), policy, 0)
    except UserError as error:
        assert policy in ("leave_group_out", "3"), error
        return
    for found in protocols:
        for fold in set(found.values()):
            assert any(found[i] != fold for i in good.index)


@pytest.mark.parametrize(
    ("good", "policy", "message"),
    [
        (series(A=5), "leave_group_out", "from 2 groups at least"),
        (series(A=5), "6", "6 is more than the 5 images"),
    ],
)
def test_impossible_folds_name_the_remedy(good, policy, message):
    with pytest.raises(UserError, match=message):
        folds(good, series(B=2), policy, 0)


def test_fixed_split_is_kept_and_test_images_get_calibration_folds():
    rows = [(f"train{i}", "", 0.0, "train") for i in range(8)]
    rows += [(f"good{i}", "", 0.0, "test") for i in range(6)] + [(f"bad{i}", "", 1.0, "test") for i in range(12)]
    rows += [("unknown", "", np.nan, "test")]
    table = split(manifest_of(rows), None, "auto", 0).set_index("image_id")
    assert table["detection"].value_counts().to_dict() == {"test": 18, "train": 8, "unlabelled": 1}
    assert (table.loc[table["detection"] != "test", "fold"] == "").all()
    tested = table[table["detection"] == "test"]
    assert tested.groupby("fold")["label"].agg(["size", "sum"]).to_numpy().tolist() == [[3, 2]] * 6
    assert (table["segmentation"] == "").all() and (table["group_fold"] == "").all()
    with pytest.raises(UserError, match="train0: it has a label and no split"):
        split(manifest_of([("train0", "", 0.0, ""), *rows[1:]]), None, "auto", 0)
    with pytest.raises(UserError, match="no good image is in train"):
        split(manifest_of(rows[8:]), None, "auto", 0)


def test_command_line_writes_the_table(tmp_path, capsys):
    rows = [(f"i{i}", "", [0.0, 1.0, np.nan][i % 3], "") for i in range(9)]
    write_table(tmp_path / "manifest.csv", manifest_of(rows), MANIFEST)
    write_table(tmp_path / "pairs.csv", pairs_of([f"i{i}" for i in range(5)]), PAIRS)
    first = ["--pairs", f"{tmp_path}/pairs.csv", "--out", f"{tmp_path}/annotated.csv"]
    main(build_parser().parse_args(first))
    assert "segmentation: train 3, val 1, test 1" in capsys.readouterr().out
    given = [
        "--manifest",
        f"{tmp_path}/manifest.csv",
        "--annotated",
        f"{tmp_path}/annotated.csv",
        "--folds",
        "leave_one_out",
    ]
    main(build_parser().parse_args([*given, "--out", f"{tmp_path}/splits.csv"]))
    table = read_table(tmp_path / "splits.csv", SPLITS)
    sides = read_table(tmp_path / "annotated.csv", SPLITS).set_index("image_id")["segmentation"]
    assert (table.set_index("image_id")["segmentation"].loc[sides.index] == sides).all()
    assert table["detection"].tolist() == ["fold", "fold", "unlabelled"] * 3
    assert table["fold"].dtype.kind != "f" and set(table["fold"]) == {"", "0", "1", "2"}
    assert "detection: fold 6, unlabelled 3; leave_one_out, 6 images in 3 folds" in capsys.readouterr().out
