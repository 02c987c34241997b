"""Stage split: who trains, validates and tests; made once, before anything is augmented, with groups kept whole.

Segmentation (annotated images): train, val, test by whole groups; an image without a group is a group of its own.
Detection: as the data set fixes it (column split), else held out or in folds by the protocol asked for. The first is
made from pairs.csv alone, so that a photograph without annotation re-runs no segmentation; the second takes it over.
Orders come from hashes of seed and name, so an added image moves few others. See ``segmentation_split``, ``folds`` and
``holdout``.
"""

import argparse
import hashlib
from collections.abc import Iterable, Sequence

import pandas as pd

from defectflow.files import UserError, stage
from defectflow.protocols import protocol_of
from defectflow.tables import MANIFEST, PAIRS, SPLITS, read_table, write_table

SIDES = ("train", "val", "test")
POLICIES = ("auto", "holdout", "kfold", "leave_one_out", "leave_group_out")
MOST_FOLDS = 5  # used where one fold per group or image would be too many: each fold is a memory bank of its own
MOST_GROUPS_LEFT_OUT_ONE_BY_ONE = 10
MOST_IMAGES_LEFT_OUT_ONE_BY_ONE = 20
CALIBRATION_FOLDS = 10  # of the test images where the data set fixes them; these need no banks
ENOUGH_GROUPS = 5  # groups with good images from which folds follow the groups


def order(names: Iterable[str], seed: int) -> list[str]:
    """Names in a random order that depends on the seed and, for each pair of names, on nothing else."""
    return sorted(names, key=lambda name: (hashlib.sha256(f"{seed}/{name}".encode()).digest(), name))


def segmentation_split(groups: pd.Series, fractions: Sequence[float], seed: int) -> pd.Series:
    """Deal annotated images to train, val and test.

    Three groups or more: whole groups, largest first, each to the side that lacks most; no side stays empty.
    Two groups: the larger trains, the other tests, and val is cut image by image from the training group (test
    stays a group never seen). One group: image by image. Fewer than three images: val stays empty.

    Args:
        groups: index image_id, value the name of the group (unique for an image on its own).
        fractions: shares of train, val and test; their sum is 1.
        seed: any int.

    Returns:
        "train", "val" or "test" with the index of ``groups``.
    """
    members = {group: order(ids, seed) for group, ids in groups.groupby(groups).groups.items()}
    ranked = sorted(order(members, seed), key=lambda group: -len(members[group]))
    if len(ranked) >= 3:
        wanted = {side: share * len(groups) for side, share in zip(SIDES, fractions, strict=True)}
        dealt: dict[str, list[str]] = {side: [] for side in SIDES}
        for position, group in enumerate(ranked):
            empty = [side for side in SIDES if not dealt[side]]
            open_sides = empty if len(empty) == len(ranked) - position else SIDES
            # On a tie, test before val: its figure is the one reported.
            side = max(open_sides, key=lambda s: (wanted[s] - len(dealt[s]), ("val", "test", "train").index(s)))
            dealt[side] += members[group]
    elif len(ranked) == 2:
        share = fractions[1] / (fractions[0] + fractions[1])
        train, val = _cut(members[ranked[0]], [1 - share, share])
        dealt = {"train": train, "val": val, "test": members[ranked[1]]}
    else:
        images = [image_id for group in ranked for image_id in members[group]]
        train, test, val = _cut(images, [fractions[0], fractions[2], fractions[1]])
        dealt = {"train": train, "val": val, "test": test}
    sides = {image_id: side for side, ids in dealt.items() for image_id in ids}
    return groups.index.to_series().map(sides).fillna("")


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
        # A group with good images goes where good ones lack, one with bad images only where bad ones lack.
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

    Bad images calibrate and test, half of them each; those of a group that trains stay on its side and are not used.

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


def choose(policy: str, groups: int, images: int) -> tuple[str, int]:
    """What a protocol leaves out, and in how many folds.

    Args:
        policy: as of :func:`folds`.
        groups, images: how many groups hold good images, and how many of these there are.

    Returns:
        ("groups" or "images", number of folds).

    Raises:
        UserError: there are not enough of them.
    """
    if policy == "auto" and groups >= ENOUGH_GROUPS:
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
    over groups if there are enough of them, else over images. auto: with good images from 5 groups or more, over groups
    (each group a fold up to 10 groups, else 5 folds); otherwise over images (each good image a fold up to 20, else 5
    folds). Whenever folds over images cut through groups, leave-group-out folds are made as a second protocol.

    Args:
        good, bad: index image_id, value the group.
        policy: auto, kfold, leave_one_out, leave_group_out or a number of folds.

    Returns:
        {image_id: fold} and the same for the second protocol ({} when not in use).

    Raises:
        UserError: not enough groups or images for the policy.
    """
    groups = good.nunique()
    unit, count = choose(policy, groups, len(good))
    if unit == "groups":
        return group_folds(good, bad, count, seed), {}
    by_image = image_folds(good.index, bad.index, count, seed)
    cut = groups >= 2 and pd.concat([good, bad]).duplicated().any()
    over_groups = groups if groups <= MOST_GROUPS_LEFT_OUT_ONE_BY_ONE else MOST_FOLDS
    return by_image, group_folds(good, bad, over_groups, seed) if cut else {}


def groups_of(table: pd.DataFrame) -> pd.Series:
    """Group of each image, index image_id; an image without one is a group of its own."""
    # A NUL cannot be in a name from a file, so an image on its own never falls into a named group.
    groups = [group or f"\0{i}" for i, group in zip(table["image_id"], table["group"], strict=True)]
    return pd.Series(groups, index=table["image_id"])


def split_annotated(pairs: pd.DataFrame, fractions: Sequence[float], seed: int) -> pd.DataFrame:
    """The table of splits of the annotated images alone (columns SPLITS): it depends on no other image.

    Args:
        pairs: columns PAIRS.
        fractions, seed: see ``segmentation_split``.
    """
    annotated = pairs[pairs["pair"] != ""]
    table = annotated[["image_id", "group"]].reindex(columns=SPLITS, fill_value="")
    sides = segmentation_split(groups_of(annotated), fractions, seed)
    return table.assign(segmentation=table["image_id"].map(sides))


def split(manifest: pd.DataFrame, annotated: pd.DataFrame | None, policy: str, seed: int) -> pd.DataFrame:
    """Make the table of splits.

    Args:
        manifest: columns MANIFEST.
        annotated: what ``split_annotated`` returned; None without annotations.
        policy: holdout, or see ``folds``; of no account where the data set fixes who trains and who is tested.
        seed: any int.

    Returns:
        DataFrame with the columns SPLITS. detection is fold, train, calibration, test or unlabelled. A bank holds no
        image of the fold that it scores, and no threshold was chosen on the fold that it judges; calibration and test
        images are scored by the bank of the train side.

    Raises:
        UserError: see ``folds``; fewer than 2 good images; labelled images without a split in a data set that fixes
            one; no good one to train.
    """
    table = manifest[["image_id", "group", "label"]].copy()
    own = groups_of(table)
    table["segmentation"], table["detection"], table["fold"], table["group_fold"] = "", "unlabelled", "", ""
    if annotated is not None:
        sides = annotated.set_index("image_id")["segmentation"]
        table["segmentation"] = table["image_id"].map(sides).fillna("")

    label = table["label"].to_numpy()
    fixed = manifest["split"].to_numpy()
    labelled = (label == 0) | (label == 1)
    if (fixed != "").any():
        if (loose := table["image_id"][labelled & (fixed == "")]).any():
            raise UserError(f"{loose.iloc[0]}: it has a label and no split (fill column split for all or for none)")
        if not ((label == 0) & (fixed == "train")).any():
            raise UserError("the data set fixes train and test, and no good image is in train (correct column split)")
        table.loc[labelled, "detection"] = fixed[labelled]
        scored = labelled & (fixed == "test")
        good, bad = own[scored & (label == 0)], own[scored & (label == 1)]
        count = max(1, min(CALIBRATION_FOLDS, good.nunique() if len(good) else bad.nunique()))
        first, second = group_folds(good, bad, count, seed), {}
    else:
        good, bad = own[label == 0], own[label == 1]
        if len(good) < 2:
            raise UserError(
                f"{len(good)} images are labelled good (label at least 2: each is scored against the others)"
            )
        if policy == "holdout":
            sides = holdout(good, bad, seed)
            table.loc[labelled, "detection"] = table["image_id"].map(sides)
            first, second = {i: side for i, side in sides.items() if side != "train"}, {}
        else:
            table.loc[labelled, "detection"] = "fold"
            first, second = folds(good, bad, policy, seed)
    for column, found in (("fold", first), ("group_fold", second)):
        table[column] = [str(found[i]) if i in found else "" for i in table["image_id"]]
    return table


def _cut(names: Sequence[str], shares: Sequence[float]) -> list[list[str]]:
    """Cut a list into parts of these shares; the first parts get at least one each while there are names."""
    sizes = [max(1, round(share * len(names))) for share in shares]
    sizes[0] = max(1, len(names) - sum(sizes[1:]))
    parts, start = [], 0
    for size in sizes:
        parts.append(list(names[start : start + size]))
        start += size
    return parts


def main(args: argparse.Namespace) -> None:
    if min(args.fractions) <= 0 or abs(sum(args.fractions) - 1) > 1e-6:
        raise UserError(f"--fractions: {args.fractions} (three positive shares with sum 1)")
    if args.pairs:
        table = split_annotated(read_table(args.pairs, PAIRS), args.fractions, args.seed)
    else:
        annotated = read_table(args.annotated, SPLITS) if args.annotated else None
        table = split(read_table(args.manifest, MANIFEST), annotated, args.folds, args.seed)
    write_table(args.out, table, SPLITS)
    sides = ", ".join(f"{side} {(table['segmentation'] == side).sum()}" for side in SIDES)
    kinds = ", ".join(f"{kind} {count}" for kind, count in table["detection"].value_counts().sort_index().items())
    print(f"segmentation: {sides}; detection: {kinds}; {protocol_of(table)['text']}")


def _policy(text: str) -> str:
    if text in POLICIES or (text.isdecimal() and int(text) >= 2):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 2 or one of {', '.join(POLICIES)}")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--pairs", metavar="pairs.csv", help="split the annotated images for segmentation")
    what.add_argument("--manifest", metavar="manifest.csv", help="split all images for detection")
    parser.add_argument("--annotated", metavar="splits.csv", help="with --manifest: the split of the annotated images")
    parser.add_argument("--folds", type=_policy, default="auto", help=f"a number or one of {', '.join(POLICIES)}")
    parser.add_argument("--fractions", type=float, nargs=3, default=[0.6, 0.2, 0.2], metavar=("TRAIN", "VAL", "TEST"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, metavar="splits.csv")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
