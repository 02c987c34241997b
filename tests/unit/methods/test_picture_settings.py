import pytest
from defectflow.core.files import UserError
from defectflow.methods.method_settings import METHODS


def entry(**values):
    return METHODS.from_dict({"method": "vae"} | values, "config.yaml: detectors.v")


def test_a_side_that_is_no_multiple_of_32_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"detectors.v: image_size 100 is no multiple of 32 \(choose 96\)"):
        entry(image_size=100)


def test_several_scales_are_refused():
    with pytest.raises(UserError, match="method vae takes one image_size"):
        entry(image_size=[128, 64])


def test_the_fit_reads_no_share_of_cells_and_the_score_only_where_it_ranks_them():
    assert "top_fraction" not in entry().read_by("score")
    assert entry(score="top_k_mean").read_by("score")["top_fraction"] == 0.01
    assert entry().read_by("features")["backbone"] == "picture"


def test_no_backbone_can_be_named():
    with pytest.raises(UserError, match="does not read 'backbone'"):
        entry(backbone="patch-nano")
