import torch
from defectflow.methods.detector import GoodPatches
from defectflow.methods.patchcore.density import densest
from defectflow.methods.patchcore.memory_bank import PatchCore
from defectflow.methods.patchcore.settings import PatchCoreSettings
from pandas import DataFrame

PHOTOGRAPHS, EACH = 6, 20


def made():
    """Six photographs of similar patches; the last has five of its own, all alike."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(PHOTOGRAPHS * EACH, 8, generator=generator) * 0.1 + 1
    patches[-5:] = torch.tensor([-1.0, 1] * 4) + 0.001 * patches[-5:]
    return patches, torch.arange(PHOTOGRAPHS).repeat_interleave(EACH)


def test_patches_of_one_photograph_alone_are_not_dense_however_alike():
    patches, owner = made()
    kept = densest(patches, owner, torch.arange(len(patches)), 0.9, 4)
    assert len(kept) == 108 and kept.tolist() == sorted(kept.tolist())
    assert not set(range(115, 120)) & set(kept.tolist())


def test_it_chooses_among_the_rows_given_and_keeps_all_of_one_photograph():
    patches, owner = made()
    rows = torch.arange(0, 40)
    assert set(densest(patches, owner, rows, 0.5, 3).tolist()) < set(range(40))
    assert densest(patches, owner, rows[:20], 1.0, 3).tolist() == list(range(20))
    assert densest(patches, owner, rows[:20], 0.5, 3).tolist() == list(range(20)), "no other photograph to say which"


def test_a_bank_of_the_densest_has_no_patch_of_the_odd_ones():
    patches, owner = made()
    table = DataFrame({"image_id": [f"p{k}" for k in range(PHOTOGRAPHS)]})
    good = GoodPatches(patches, owner, owner, table, 0, len(patches), patches[::EACH], (4, 5))
    every = torch.ones(PHOTOGRAPHS, dtype=torch.bool)
    bank = PatchCore.fit(good, PatchCoreSettings(density=0.9))(every)[""]
    assert len(bank) == 108 and bank[:, 0].min() > 0
    assert torch.equal(PatchCore.fit(good, PatchCoreSettings())(every)[""], patches)


def test_a_defect_is_not_dense_because_of_copies_of_its_own_photograph():
    patches, owner = made()
    patches, owner = torch.cat([patches, *[patches[-EACH:]] * 5]), torch.arange(PHOTOGRAPHS + 5).repeat_interleave(EACH)
    table = DataFrame({"image_id": [f"p{min(k, PHOTOGRAPHS - 1)}" for k in range(PHOTOGRAPHS + 5)]})
    good = GoodPatches(patches, owner, owner, table, 0, len(patches), patches[::EACH], (4, 5))
    every = torch.ones(len(table), dtype=torch.bool)
    assert PatchCore.fit(good, PatchCoreSettings(density=0.8))(every)[""][:, 0].min() > 0
