import cv2
import numpy as np
import photograph_set
import pytest
from defectflow.core.files import UserError
from defectflow.pretraining.annotated_photographs import LONGEST, read_photographs, series_of, split


def test_photographs_are_read_with_their_labels_and_shrunk_alike(tmp_path):
    photograph_set.write_photographs(tmp_path)
    large = cv2.resize(cv2.imread(str(tmp_path / "tools/images/0_0.png")), (1024, 768))
    labels = cv2.imread(str(tmp_path / "tools/masks/0_0.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(tmp_path / "tools/images/0_0.png"), large)
    cv2.imwrite(str(tmp_path / "tools/masks/0_0.png"), cv2.resize(labels, (1024, 768), interpolation=cv2.INTER_NEAREST))
    found = read_photographs(tmp_path)
    assert len(found) == 24 and {one.source for one in found} == {"tools", "people"}
    assert found[0].image.shape == (384, LONGEST, 3) and found[0].labels.shape == (384, LONGEST)
    assert set(np.unique(found[0].labels)) == {0, 1, 2}
    assert [one.figure for one in found[:1] + found[-1:]] == [False, True]
    assert found[0].origin == "owner/tools"


def test_series_are_found_and_stay_on_one_side_of_the_split(tmp_path):
    photograph_set.write_photographs(tmp_path, singles=60)
    photographs = read_photographs(tmp_path)
    series = series_of(photographs)
    assert len(set(series[:12])) == 3 and all(len(set(series[k : k + 4])) == 1 for k in (0, 4, 8))
    assert len(set(series[12:])) > 50
    train, held = split(photographs)
    assert len(train) + len(held) == 72 and 1 < len(held) < 24
    first = {one.name: number for one, number in zip(photographs, series, strict=True)}
    assert not {first[one.name] for one in train} & {first[one.name] for one in held}
    assert [one.name for one in split(photographs)[1]] == [one.name for one in held]


def test_wrong_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"index\.csv: no such file"):
        read_photographs(tmp_path)
    (tmp_path / "index.csv").write_text("file,mask\na,b\n")
    with pytest.raises(UserError, match="needs the columns"):
        read_photographs(tmp_path)
    (tmp_path / "index.csv").unlink()
    photograph_set.write_photographs(tmp_path)
    with pytest.raises(UserError, match="too few series"):
        split(read_photographs(tmp_path)[:4])
    cv2.imwrite(str(tmp_path / "tools/masks/0_1.png"), np.zeros((5, 5), np.uint8))
    with pytest.raises(UserError, match=r"0_1\.png: no label map of the size"):
        read_photographs(tmp_path)
