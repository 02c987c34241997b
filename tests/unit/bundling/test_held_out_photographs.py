import numpy as np
import pytest
from defectflow.core.bank_files import BankFile
from defectflow.images.read_write import read_rgb
from defectflow.inspection.bundle_files import read_bundle
from defectflow.inspection.held_out import read_held_out, short
from defectflow.inspection.inspector import Inspector
from defectflow.inspection.mask_and_score import settings_of
from defectflow.methods.patchcore.bank_in_numpy import PatchCore


def test_each_photograph_of_the_run_is_scored_by_the_bank_without_it_and_measured(bundle_folder):
    bundle = read_bundle(bundle_folder)
    held, file = read_held_out(bundle), BankFile(bundle_folder.parent / "fold_banks.safetensors")
    assert held.label.tolist() == [0, 0, 1] and [one["fold"] for one in held.photographs] == ["0"] * 3
    detector = PatchCore(file.tensors("fold/0"), file.settings, settings_of(bundle, "detector"))
    inspector = Inspector.load(bundle_folder, "torch")
    for number, one in enumerate(held.photographs):
        item = inspector.prepare(read_rgb(bundle_folder.parent / one["name"]))
        score, distances = detector.judge(inspector.embed(item), item.cells)
        assert held.score[number] == pytest.approx(score)
        own = held.owner == number
        np.testing.assert_allclose(held.distance[own], np.sort(distances)[::-1][: own.sum()], rtol=1e-5)
        assert held.patches[number] == len(distances) and own.sum() == 100
        # The re-weighted score of the farthest patch is that of the photograph.
        assert held.weight[own][0] * held.distance[own][0] == pytest.approx(score, rel=1e-5)
    assert np.isfinite(held.measures[:, [0, 1, 3, 4]]).all() and np.isnan(held.measures[:, 2]).all()
    assert held.picture.shape == (64, 64) and held.review == {"max_fpr": 0.02, "max_fnr": 0.02}
    assert held.used is not None and {short(one["sha256"]) for one in held.photographs} <= set(held.used)
