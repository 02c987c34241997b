import pytest
from defectflow.core.files import UserError
from defectflow.sources import preflight


def make(tmp_path, count=12, labels=None, folder="", unlabelled="auto"):
    """A set of so many files, of which none is opened; ``labels``: lines of labels.csv."""
    place = tmp_path / "images" / folder
    place.mkdir(parents=True)
    for k in range(count):
        (place / f"{k:02}.png").write_bytes(str(k).encode())
    if labels is not None:
        (tmp_path / "labels.csv").write_text("\n".join(["filename,label", *labels]) + "\n")
    preflight.forget()
    return preflight.resolve({"path": str(tmp_path), "unlabelled": unlabelled})


def test_a_set_without_any_label_is_learned_from(tmp_path):
    resolved = make(tmp_path)
    assert preflight.learns_unlabelled(resolved)
    preflight.check_learnable(resolved)


def test_one_label_is_enough_to_do_without_unless_asked_to(tmp_path):
    resolved = make(tmp_path, labels=["00.png,0"])
    assert not preflight.learns_unlabelled(resolved)
    with pytest.raises(UserError, match="1 images are labelled good"):
        preflight.check_learnable(resolved)
    asked = resolved | {"unlabelled": "learn"}
    assert preflight.learns_unlabelled(asked)
    preflight.check_learnable(asked)


def test_a_set_without_labels_can_be_refused(tmp_path):
    resolved = make(tmp_path, unlabelled="judge")
    with pytest.raises(UserError, match="0 images are labelled good"):
        preflight.check_learnable(resolved)


@pytest.mark.parametrize("name", ["label.csv", "Labels.xlsx"])
@pytest.mark.parametrize("place", ["", "images"])
def test_a_table_that_may_hold_the_labels_stops(tmp_path, name, place):
    resolved = make(tmp_path)
    (tmp_path / place / name).write_text("filename;quality\n")
    with pytest.raises(UserError, match=f"{name}: not read, and it may hold the labels .*`unlabelled: learn`") as told:
        preflight.check_learnable(resolved)
    assert "\n" not in str(told.value)
    preflight.check_learnable(resolved | {"unlabelled": "learn"})


@pytest.mark.parametrize("folder", ["monday/good", "monday/OK images", "monday/ng"])
def test_a_folder_that_may_be_a_label_stops(tmp_path, folder):
    resolved = make(tmp_path, folder=folder)
    with pytest.raises(UserError, match="the name may be a label"):
        preflight.check_learnable(resolved)


def test_few_photographs_and_a_strategy_that_needs_bad_ones_stop(tmp_path):
    few = make(tmp_path, count=4)
    with pytest.raises(UserError, match="0 images are labelled good"):
        preflight.check_learnable(few)
    with pytest.raises(UserError, match="4 photographs without a label are too few"):
        preflight.check_learnable(few | {"unlabelled": "learn"})
    for k in range(4, 6):
        (tmp_path / f"images/{k:02}.png").write_bytes(b"x")
    preflight.forget()
    resolved = preflight.resolve({"path": str(tmp_path)})
    with pytest.raises(UserError, match="0 images to be judged are labelled bad"):
        preflight.check_learnable(resolved, {"good": 0, "bad": 1})


def test_a_fixed_split_is_refused(tmp_path):
    resolved = make(tmp_path, unlabelled="learn")
    (tmp_path / "labels.csv").write_text("filename,label,split\n00.png,0,train\n")
    preflight.forget()
    with pytest.raises(UserError, match="takes no fixed split"):
        preflight.check_learnable(preflight.resolve({"path": str(tmp_path), "unlabelled": "learn"}))
    assert resolved["labels"] is None
