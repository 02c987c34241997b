"""Stage split: assign images to training, validation and test, once, before augmentation; groups stay together.

Segmentation (annotated images): train, val, test by whole groups; an image without a group is a group of its own.
Detection: as the data set fixes it (column split), else a holdout or folds by the chosen protocol. The segmentation
split is made from pairs.csv alone, so that a photograph without annotation does not re-run segmentation; the detection
split copies it. Orders come from hashes of seed and name, so an added image moves few others. See
``segmentation_split``, ``folds`` and ``holdout``.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from defectflow.core.arguments import add_seed
from defectflow.core.files import UserError, stage
from defectflow.core.tables import PAIRS, SPLITS, read_parts, read_table, table_writer, write_table
from defectflow.data.folds_and_holdout import POLICIES, folds, group_folds, holdout, order, protocol_of

SIDES = ("train", "val", "test")
# Of the annotated images, for each side: half of them or more to learn from, the rest to stop by and to judge by.
FRACTIONS = (0.6, 0.2, 0.2)
CALIBRATION_FOLDS = 10  # of the test images where the data set fixes them; these need no banks


def segmentation_split(groups: pd.Series, fractions: Sequence[float], seed: int) -> pd.Series:
    """Deal annotated images to train, val and test.

    Three groups or more: whole groups, largest first, each to the side that is furthest from its share; no side stays
    empty.
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
            # On a tie, test before val: the test figure is the reported one.
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
        manifest: columns image_id, group, label and split; images without any of the latter may be left out.
        annotated: what ``split_annotated`` returned; None without annotations.
        policy: holdout, or see ``folds``; ignored if the data set fixes who trains and who is tested.
        seed: any int.

    Returns:
        DataFrame with the columns SPLITS. detection is fold, train, calibration, test or unlabelled. A bank holds no
        image of the fold that it scores, and no threshold is chosen on the fold that it judges; calibration and test
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
    first: Mapping[str, int | str]
    second: Mapping[str, int | str] = {}
    if (fixed != "").any():
        if (loose := table["image_id"][labelled & (fixed == "")]).any():
            raise UserError(f"{loose.iloc[0]}: it has a label and no split (fill column split for all or for none)")
        if not ((label == 0) & (fixed == "train")).any():
            raise UserError("the data set fixes train and test, and no good image is in train (correct column split)")
        table.loc[labelled, "detection"] = fixed[labelled]
        scored = labelled & (fixed == "test")
        good, bad = own[scored & (label == 0)], own[scored & (label == 1)]
        count = max(1, min(CALIBRATION_FOLDS, good.nunique() if len(good) else bad.nunique()))
        first = group_folds(good, bad, count, seed)
    else:
        good, bad = own[label == 0], own[label == 1]
        if len(good) < 2:
            raise UserError(
                f"{len(good)} images are labelled good (label at least 2: each is scored against the others)"
            )
        if policy == "holdout":
            sides = holdout(good, bad, seed)
            table.loc[labelled, "detection"] = table["image_id"].map(sides)
            first = {i: side for i, side in sides.items() if side != "train"}
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


def split_all(args: argparse.Namespace) -> tuple[pd.DataFrame, Counter[str]]:
    """Write the splits of all images of a manifest, in its order.

    Returns:
        the rows of those that have a label, a side or an annotation, and how many images there are of each detection.
    """
    annotated = read_table(args.annotated, SPLITS) if args.annotated else None
    outlined = [] if annotated is None else annotated["image_id"]
    columns = ["image_id", "group", "label", "split"]
    manifest = read_table(
        args.manifest,
        columns,
        lambda part: (
            part["label"].notna() | (part["split"] != "") | part["image_id"].isin(outlined) | args.learn_unlabelled
        ),
    )
    if args.learn_unlabelled:
        manifest["label"] = manifest["label"].fillna(0)
    table = split(manifest, annotated, args.folds, args.seed)
    kinds: Counter[str] = Counter()
    with table_writer(args.out, SPLITS) as add:
        for part in read_parts(args.manifest, columns):
            known = table["image_id"].isin(part["image_id"])
            new = part.loc[~part["image_id"].isin(table["image_id"]), ["image_id", "group", "label"]]
            new = new.reindex(columns=SPLITS, fill_value="").assign(detection="unlabelled")
            rows = pd.concat([table[known], new]).sort_values("image_id")
            kinds.update(rows["detection"])
            add(rows)
    return table, kinds


def main(args: argparse.Namespace) -> None:
    if args.pairs:
        table = split_annotated(read_table(args.pairs, PAIRS), FRACTIONS, args.seed)
        write_table(args.out, table, SPLITS)
        counts = Counter(table["detection"])
    else:
        table, counts = split_all(args)
    sides = ", ".join(f"{side} {(table['segmentation'] == side).sum()}" for side in SIDES)
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
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
    parser.add_argument("--learn-unlabelled", action="store_true", help="take images without a label for good ones")
    parser.add_argument("--folds", type=_policy, default="auto", help=f"a number or one of {', '.join(POLICIES)}")
    add_seed(parser)
    parser.add_argument("--out", required=True, metavar="splits.csv")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
