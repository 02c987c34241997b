"""Protocols by which labelled images are held out: folds or a fixed split, of images or whole groups."""

import hashlib
from collections.abc import Iterable
from typing import TypedDict

import pandas as pd

from defectflow.core.files import UserError

POLICIES = ("auto", "holdout", "kfold", "leave_one_out", "leave_group_out")
MOST_FOLDS = 5  # used if one fold per group or image would be too many: each fold has its own memory bank
MOST_GROUPS_LEFT_OUT_ONE_BY_ONE = 10
MOST_IMAGES_LEFT_OUT_ONE_BY_ONE = 20
ENOUGH_GROUPS = 5  # groups with good images from which folds follow the groups

MEANING = (
    "How labelled images are held out. fixed: the data set says who trains and who is tested; holdout: half trains, a "
    "quarter calibrates, a quarter is tested; leave_one_out, leave_group_out, kfold: each fold is scored by a bank "
    "without it and judged by a threshold chosen on the other folds, which are scored for it by banks without either. "
    "n_with_group_mates: images judged with the help "
    "of others of their own group, in the bank or in the calibration: expect less of a group never seen."
)


def order(names: Iterable[str], seed: int) -> list[str]:
    """Names in a random order that depends on the seed and, for each pair of names, on nothing else."""
    return sorted(names, key=lambda name: (hashlib.sha256(f"{seed}/{name}".encode()).digest(), name))


def group_folds(good: pd.Series, bad: pd.Series, count: int, seed: int) -> dict[str, int]:
    """Deal images to ``count`` folds by whole groups, good images balanced first, then bad ones.

    Args:
        good, bad: index image_id, value the group. At least ``count`` groups must hold good images.

    Returns:
        {image_id: fold}; every fold holds a good image.
    """
    fold_of: dict[str, int] = {}
    n_good, n_bad = [0] * count, [0] * count
    goods, bads = good.value_counts(), bad.value_counts()
    for group in sorted(order({*good, *bad}, seed), key=lambda g: (-goods.get(g, 0), -bads.get(g, 0))):
        # A group with good images goes to the fold with fewest good ones; one with bad images only, by bad ones.
        fill = (n_good, n_bad) if group in goods else (n_bad, n_good)
        fold = min(range(count), key=lambda f: (fill[0][f], fill[1][f], f))
        fold_of[group] = fold
        n_good[fold] += int(goods.get(group, 0))
        n_bad[fold] += int(bads.get(group, 0))
    return {image_id: fold_of[group] for images in (good, bad) for image_id, group in images.items()}


def image_folds(good: Iterable[str], bad: Iterable[str], count: int, seed: int) -> dict[str, int]:
    """Deal images to ``count`` folds one by one, good and bad ones each spread evenly."""
    return {image_id: i % count for images in (good, bad) for i, image_id in enumerate(order(images, seed))}


def holdout(good: pd.Series, bad: pd.Series, seed: int) -> dict[str, str]:
    """Deal images to three sides by whole groups: half of the good ones train, the rest calibrate and test.

    Bad images are split evenly between calibration and test; those of a training group stay there and are not used.

    Args:
        good, bad: index image_id, value the group.

    Returns:
        {image_id: "train", "calibration" or "test"}; every side holds a good image.

    Raises:
        UserError: good images come from fewer than 4 groups.
    """
    if good.nunique() < 4:
        raise UserError(
            f"folds: holdout needs good images from 4 groups, and there are {good.nunique()} (set folds: auto)"
        )
    mixed = bad[bad.isin(good)]
    names = ("train", "train", "calibration", "test")
    sides = {image_id: names[fold] for image_id, fold in group_folds(good, mixed, 4, seed).items()}
    count = {side: sum(sides[i] == side for i in mixed.index) for side in ("calibration", "test")}
    members = bad.drop(mixed.index).groupby(bad).groups
    for group in sorted(order(members, seed), key=lambda group: -len(members[group])):
        side = min(count, key=lambda side: (count[side], side))
        count[side] += len(members[group])
        sides |= dict.fromkeys(members[group], side)
    return sides


def choose(policy: str, groups: int, images: int, largest: int) -> tuple[str, int]:
    """Whether a protocol leaves out groups or images, and in how many folds.

    Args:
        policy: as of :func:`folds`.
        groups, images: how many groups hold good images, and how many of these there are.
        largest: how many of them the largest group holds.

    Returns:
        ("groups" or "images", number of folds).

    Raises:
        UserError: there are not enough groups or images.
    """
    # Without a group that holds most images, a bank would be too small to choose a threshold on its scores.
    if policy == "auto" and groups >= ENOUGH_GROUPS and 2 * largest <= images:
        return "groups", groups if groups <= MOST_GROUPS_LEFT_OUT_ONE_BY_ONE else MOST_FOLDS
    if policy == "auto":
        return "images", images if images <= MOST_IMAGES_LEFT_OUT_ONE_BY_ONE else MOST_FOLDS
    if policy == "kfold":
        return ("groups", min(MOST_FOLDS, groups)) if groups > 1 else ("images", min(MOST_FOLDS, images))
    if policy == "leave_group_out":
        if groups < 2:
            raise UserError("folds: leave_group_out needs good images from 2 groups at least (set folds: auto)")
        return "groups", groups
    if policy == "leave_one_out":
        return "images", images
    if int(policy) > images:
        raise UserError(f"folds: {policy} is more than the {images} images labelled good (set folds: auto)")
    return "groups" if groups >= int(policy) else "images", int(policy)


def folds(good: pd.Series, bad: pd.Series, policy: str, seed: int) -> tuple[dict[str, int], dict[str, int]]:
    """Cross-validation folds by policy.

    leave_group_out: each group with good images a fold. leave_one_out: each good image a fold; its group mates stay in
    its bank and among the images its threshold is chosen on (without them it would be leave_group_out). kfold: 5 folds
    over groups, or fewer where there are fewer groups; over images where all are of one group. A number: as many folds,
    over groups if there are enough of them, else over images. auto: with good images from 5 groups or more, none of
    which holds more than half of them, over groups (each group a fold up to 10 groups, else 5 folds); otherwise over
    images (each good image a fold up to 20, else 5 folds). Whenever folds over images cut through groups,
    leave-group-out folds are made as a second protocol.

    Args:
        good, bad: index image_id, value the group.
        policy: auto, kfold, leave_one_out, leave_group_out or a number of folds.

    Returns:
        {image_id: fold} and the same for the second protocol ({} when not in use).

    Raises:
        UserError: not enough groups or images for the policy.
    """
    groups = good.nunique()
    unit, count = choose(policy, groups, len(good), int(good.value_counts().max()))
    if unit == "groups":
        return group_folds(good, bad, count, seed), {}
    by_image = image_folds(good.index, bad.index, count, seed)
    cut = groups >= 2 and pd.concat([good, bad]).duplicated().any()
    over_groups = groups if groups <= MOST_GROUPS_LEFT_OUT_ONE_BY_ONE else MOST_FOLDS
    return by_image, group_folds(good, bad, over_groups, seed) if cut else {}


class Protocol(TypedDict):
    """``protocol`` in metrics.json, see `protocol_of`."""

    name: str
    n_folds: int
    n_images: int
    n_with_group_mates: int
    text: str
    meaning: str


def protocol_of(splits: pd.DataFrame) -> Protocol:
    """Name and size of the protocol, and how many of the images it judges have group mates on the other side.

    Args:
        splits: columns SPLITS.

    Returns:
        name (fixed, holdout, leave_one_out, leave_group_out, kfold, or none without labelled images), n_folds (of the
        images judged), n_images (judged), n_with_group_mates, text (one line for a person) and meaning.
    """
    table = splits[splits["detection"].isin(["train", "calibration", "fold", "test"])]
    judged = table[table["detection"].isin(["fold", "test"])]
    good = judged[judged["label"] == 0]
    # Images with the same place do not take part in each other's bank and threshold.
    place = table["detection"].where(table["detection"] == "train", table["fold"])
    named = table["group"] != ""
    cut = place[named].groupby(table["group"][named]).nunique()
    mates = int(judged["group"].isin(cut.index[cut > 1]).sum())
    n_folds = judged["fold"].nunique()
    groups = good["group"].where(good["group"] != "", good["image_id"])
    if judged.empty:
        name = "none"
    elif (table["detection"] == "calibration").any():
        name = "holdout"
    elif (judged["detection"] == "test").any():
        name = "fixed"
    elif n_folds == len(good):
        name = "leave_one_out"
    elif n_folds == groups.nunique() and not mates:
        name = "leave_group_out"
    else:
        name = "kfold"
    said = f"{name}, {len(judged)} images in {n_folds} folds"
    return {
        "name": name,
        "n_folds": n_folds,
        "n_images": len(judged),
        "n_with_group_mates": mates,
        "text": f"{said}, {mates} of them with images of their own group on the other side" if mates else said,
        "meaning": MEANING,
    }
