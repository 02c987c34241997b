"""No image, copy or group mate has a say in its own bank or threshold: the real stages, run on many random sets."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from defectflow.core.files import UserError
from defectflow.core.tables import CALIBRATION, MANIFEST
from defectflow.data.folds_and_holdout import protocol_of
from defectflow.data.split import split
from defectflow.decision.decisions import assign_verdicts, is_calibration, with_calibration
from defectflow.detection.calibrate import inner_parts, score_all
from defectflow.detection.calibrate import plan as calibration_plan
from defectflow.detection.fit import bank_members
from defectflow.detection.score import plan
from defectflow.detection.training_patches import load_good
from defectflow.methods.patchcore.memory_bank import PatchCore
from defectflow.methods.patchcore.settings import PatchCoreSettings

STRICT = ("holdout", "kfold", "leave_group_out")
POLICIES = (*STRICT, "leave_one_out", "auto", "3")
SEEDS = range(8)


class Features:
    """A patch file in memory: every image, with an augmented copy of good ones and a perturbed one of all."""

    def __init__(self, images: pd.DataFrame):
        self.items, values = [], []
        for row in images.itertuples():
            copies = [("", ""), ("~blur~1", "perturbed"), *([("~aug1", "augmented")] if row.label == 0 else [])]
            for number, (suffix, kind) in enumerate(copies):
                source = row.image_id if suffix else ""
                self.items.append({"image_id": row.image_id + suffix, "copy_of": source, "kind": kind})
                values.append(row.value + 0.01 * number)
        self.values = torch.tensor(values, dtype=torch.float32)
        self.present = [True] * len(values)
        self.affine = np.zeros((len(values), 2, 3))
        self.config, self.dimensions = {"backbone": "toy", "grid": [1, 1]}, 1

    def count(self, i: int) -> int:
        return 1

    def patches(self, i: int) -> torch.Tensor:
        return self.values[i].reshape(1, 1)

    def position(self, i: int) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.int64)


def random_images(seed: int) -> pd.DataFrame:
    """10 to 40 images, of few or many groups, some without a group, some without a label; one value is its feature."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(10, 41))
    group = [f"g{k}" if k else "" for k in rng.integers(0, rng.integers(2, n), n)]
    label = rng.choice([0.0, 1.0, np.nan], n, p=[0.6, 0.3, 0.1])
    label[:6], label[6:8] = 0.0, 1.0
    value = rng.normal(np.where(label == 1, 2.0, 0.0), 1.0)
    return pd.DataFrame({"image_id": [f"i{k:02d}" for k in range(n)], "group": group, "label": label, "value": value})


def splits_of(images: pd.DataFrame, policy: str) -> pd.DataFrame:
    return split(images[["image_id", "group", "label"]].reindex(columns=MANIFEST, fill_value=""), None, policy, 0)


def run(images: pd.DataFrame, splits: pd.DataFrame, calibrate: bool = True) -> tuple[dict[str, set], pd.DataFrame]:
    """From splits to scores: {bank: images it holds}, and the gathered table with the bank of each image."""
    splits = splits.assign(label=images["label"])
    file = Features(images)
    good = load_good([file], splits, PatchCore, PatchCoreSettings())
    members = bank_members(good.images, splits)
    banks = {name: set(good.images["image_id"][kept]) for name, kept in members.items()}
    value = {name: good.patches[torch.tensor(kept)[good.owner], 0] for name, kept in members.items()}
    rows = []
    for task in plan(file.items, splits):
        item = file.items[task.item]
        own = [
            float((value[name] - file.values[task.item]).abs().min()) for name in (task.bank, task.group_bank) if name
        ]
        rows.append({**item, "bank": task.bank, "group_bank": task.group_bank, "raw_score": own[0]})
        rows[-1]["group_out_score"] = own[1] if len(own) > 1 else np.nan
    scores = pd.DataFrame(rows)
    table = scores[scores["kind"] == ""].merge(
        splits[["image_id", "group", "label", "detection", "fold", "group_fold"]]
    )
    perturbed = scores[scores["kind"] == "perturbed"].set_index("copy_of")["bank"]
    assert (perturbed[table["image_id"]] == table["bank"].to_numpy()).all()  # copies are scored as their source
    if calibrate:
        plans = calibration_plan(splits, good.images)
        options = PatchCore, PatchCoreSettings(neighbours=1)
        scores = [scored[:4] for scored in score_all(plans, [file], good, *options)]
        table = with_calibration(table, pd.DataFrame(scores, columns=CALIBRATION))
    return banks, table


def cases(policies=POLICIES, seeds=SEEDS):
    """(policy, images, splits) of every random set that the policy can do with."""
    for seed in seeds:
        images = random_images(seed)
        for policy in policies:
            try:
                yield policy, images, splits_of(images, policy)
            except UserError as error:
                assert "groups" in str(error)


def test_the_sets_are_of_every_kind():
    names = [protocol_of(splits)["name"] for *_, splits in cases()]
    assert {name: names.count(name) >= 3 for name in set(names)} == dict.fromkeys((*STRICT, "leave_one_out"), True)


def test_no_image_copy_or_group_mate_is_in_the_bank_or_the_calibration():
    for policy, images, splits in cases():
        group = images.set_index("image_id")["group"]
        banks, table = run(images, splits, calibrate=False)
        leaks = set()
        for row in table[is_calibration(table)].itertuples():
            mates = set(group.index[(group == row.group) & (group != "")]) - {row.image_id}
            bank = banks[row.bank]
            judges = set(table["image_id"][is_calibration(table) & (table["fold"] != row.fold)])
            assert row.image_id not in bank | judges
            if (bank | judges) & mates:
                leaks.add(row.image_id)
            if row.group_bank:  # the second protocol
                others = set(table["image_id"][is_calibration(table) & (table["group_fold"] != row.group_fold)])
                assert not (banks[row.group_bank] | others) & (mates | {row.image_id})
        told = protocol_of(splits)
        if policy in STRICT:
            assert not leaks, policy
        judged = set(table["image_id"][table["detection"].isin(["fold", "test"])])
        assert told["n_with_group_mates"] == len(leaks & judged) and told["n_images"] == len(judged)
        assert ("of their own group" in told["text"]) == bool(leaks & judged)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_flipped_label_changes_neither_the_images_own_bank_nor_its_threshold(policy):
    count = 0
    for _, images, splits in cases([policy], range(3)):
        banks, table = run(images, splits)
        before = assign_verdicts(table, "f1_adaptive").table.set_index("image_id")
        for index in (0, 3, 6, 7):  # good and bad ones
            name = images["image_id"][index]
            if name not in before.index:
                continue  # it trains
            flipped = images.assign(label=np.where(images.index == index, 1 - images["label"], images["label"]))
            banks_after, scored = run(flipped, splits)
            bank = before.loc[name, "bank"]
            assert banks_after[bank] == banks[bank]
            assert scored.set_index("image_id").loc[name, "raw_score"] == before.loc[name, "raw_score"]
            relabelled = table.assign(label=np.where(table["image_id"] == name, 1 - table["label"], table["label"]))
            after = assign_verdicts(relabelled, "f1_adaptive").table.set_index("image_id")
            assert after.loc[name, ["threshold", "predicted_label"]].equals(
                before.loc[name, ["threshold", "predicted_label"]]
            )
            # With all that was learned and scored anew. Of two folds one is judged and one learned from: none is left.
            if splits["fold"].nunique() > 2 or policy == "holdout":
                again = assign_verdicts(scored, "f1_adaptive").table.set_index("image_id")
                assert again.loc[name, "threshold"] == before.loc[name, "threshold"]
                count += 1
    assert count >= 4


@pytest.mark.parametrize("count", [2, 3, 5, 12, 13, 30])
def test_every_fold_is_calibrated_on_all_others_by_banks_without_both(count):
    banks = inner_parts(map(str, range(count)))
    scored = {}
    for without, parts in banks.items():
        for judged, part in parts:
            assert judged in without and part < without and judged not in part
            scored.setdefault(judged, []).extend(part)
    assert {judged: sorted(part) for judged, part in scored.items()} == {
        str(k): sorted(str(other) for other in range(count) if other != k) for k in range(count)
    }
    assert len(banks) <= (66 if count <= 12 else 5 * count)


def test_holdout_keeps_its_three_sides_apart():
    for _, _, splits in cases(["holdout"]):
        good, bad = (splits[splits["label"] == label].groupby("detection").size() for label in (0, 1))
        assert set(good.index) == {"train", "calibration", "test"} and (
            bad.sum() < 2 or "test" in bad or "train" in bad
        )
        assert set(splits["fold"]) == {"", "calibration", "test"}
    images = pd.DataFrame({"image_id": [f"i{k:03d}" for k in range(120)], "group": "", "label": 0.0})
    images.loc[80:, "label"] = 1.0
    sides = splits_of(images, "holdout").groupby(["label", "detection"]).size()
    assert sides.to_dict() == {
        (0.0, "train"): 40, (0.0, "calibration"): 20, (0.0, "test"): 20, (1.0, "calibration"): 20, (1.0, "test"): 20,
    }  # fmt: skip


@pytest.mark.parametrize(
    "rows, name",
    [
        ([("train", "", 0), ("test", "0", 0), ("test", "1", 1)], "fixed"),
        ([("train", "", 0), ("calibration", "calibration", 0), ("test", "test", 1)], "holdout"),
        ([("fold", "0", 0), ("fold", "1", 0), ("fold", "1", 1)], "leave_one_out"),
        ([("fold", "0", 0), ("fold", "0", 0), ("fold", "1", 0), ("fold", "1", 0)], "kfold"),
        ([("unlabelled", "", np.nan)], "none"),
    ],
)
def test_the_name_is_told_from_the_table(rows, name):
    splits = pd.DataFrame(rows, columns=["detection", "fold", "label"]).assign(group="")
    splits["image_id"] = [f"i{k}" for k in range(len(rows))]
    assert protocol_of(splits)["name"] == name


def test_a_group_on_both_sides_of_a_split_that_the_data_set_fixes_is_told():
    rows = [("train", "", 0, "a"), ("test", "0", 0, "a"), ("test", "1", 0, "b"), ("test", "1", 1, "b")]
    splits = pd.DataFrame(rows, columns=["detection", "fold", "label", "group"]).assign(image_id=list("wxyz"))
    assert protocol_of(splits)["n_with_group_mates"] == 1
    assert SimpleNamespace(**protocol_of(splits)).text.endswith(
        "1 of them with images of their own group on the other side"
    )
