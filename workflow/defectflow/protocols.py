"""What protocol a table of splits stands for, told from the table itself: facts, not intentions."""

from typing import Any

import pandas as pd

MEANING = (
    "How labelled images are held out. fixed: the data set says who trains and who is tested; holdout: half trains, a "
    "quarter calibrates, a quarter is tested; leave_one_out, leave_group_out, kfold: each fold is scored by a bank "
    "without it and judged by a threshold chosen on the other folds. n_with_group_mates: images judged with the help "
    "of others of their own group, in the bank or in the calibration: expect less of a group never seen."
)


def protocol_of(splits: pd.DataFrame) -> dict[str, Any]:
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
    # A place is what an image shares with those that have no say in its bank and its threshold.
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
