import numpy as np
import picture_set
import pytest
import torch
from defectflow.core.files import UserError, read_json
from defectflow.core.parallel import can_fork, in_forks
from defectflow.detection import fit
from defectflow.detection.feature_files import write_patches
from defectflow.methods.vae.autoencoder import Vae
from detector_set import CELLS, patches_of, run_fit, write_shard, write_splits
from safetensors import safe_open
from safetensors.torch import load_file, save_file

SPLITS = [
    ("good1", "0", "fold", "0", "A"),
    ("good2", "0", "fold", "1", "A"),
    ("good3", "0", "fold", "2", "B"),
    ("bad1", "1", "fold", "0", "B"),
    ("new", "", "unlabelled", "", ""),
    ("kept", "0", "train", "", ""),
    ("held", "0", "test", "0", ""),
]
SHARDS = [
    [("bad1", "", ""), ("good1", "", ""), ("good1~aug1", "good1", "augmented"), ("new", "", "")],
    [("good2", "", ""), ("good3", "", ""), ("good3~per1", "good3", "perturbed"), ("held", "", ""), ("kept", "", "")],
]
WHOLE = ("--coreset-ratio", "1")
PIXELS = ("--method", "pixel_difference")


@pytest.fixture
def data(tmp_path):
    shards = [write_shard(tmp_path / f"{k}.safetensors", names) for k, names in enumerate(SHARDS)]
    return tmp_path, shards, write_splits(tmp_path / "splits.csv", SPLITS)


def bank_of(*names):
    return torch.cat([patches_of(name, False, False) for name in names])


def test_banks_hold_the_good_images_of_the_other_folds_only(data):
    folder, shards, splits = data
    banks, report = run_fit(folder, shards, splits, *WHOLE)
    found = load_file(banks)
    expected = {
        "all": ("good1", "good1~aug1", "good2", "good3", "kept"),
        "fold/0": ("good2", "good3", "kept"),
        "fold/1": ("good1", "good1~aug1", "good3", "kept"),
        "fold/2": ("good1", "good1~aug1", "good2", "kept"),
        "group/A": ("good3", "kept"),
        "group/B": ("good1", "good1~aug1", "good2", "kept"),
    }
    assert found.keys() == expected.keys()
    for name, images in expected.items():
        assert torch.equal(found[name], bank_of(*images)), name
    summary = read_json(report)
    assert summary["good_images"] == 4 and summary["augmented_copies"] == 1
    assert summary["banks"]["fold/0"] == {"images": 3, "patches": 3 * CELLS, "size": 3 * CELLS, "dimensions": 6}


def test_coreset_is_a_part_of_the_bank_that_depends_on_no_draw(data):
    folder, shards, splits = data
    banks, report = run_fit(folder, shards, splits, "--coreset-ratio", "0.5", "--coreset-max", "30")
    first = banks.read_bytes(), report.read_bytes()
    found = load_file(banks)
    assert {len(bank) for bank in found.values()} == {30}
    rows = {tuple(row) for row in bank_of("good2", "good3", "kept").tolist()}
    assert all(tuple(row) in rows for row in found["fold/0"].tolist())
    run_fit(folder, shards[::-1], splits, "--coreset-ratio", "0.5", "--coreset-max", "30")
    assert (banks.read_bytes(), report.read_bytes()) == first  # nor does the order of the shards matter
    run_fit(folder, shards, splits, "--coreset-ratio", "0.5", "--coreset-max", "30", "--seed", "1")
    assert banks.read_bytes() == first[0]  # what is random is the projection of patches of more dimensions


def test_banks_of_every_fold_have_the_same_size_where_they_are_coresets(data):
    banks, _ = run_fit(*data, "--coreset-ratio", "0.35")
    sizes = {name: len(bank) for name, bank in load_file(banks).items()}
    assert sizes == {"all": 35, "fold/0": 35, "fold/1": 35, "fold/2": 35, "group/A": 35, "group/B": 35}
    banks, _ = run_fit(*data, "--coreset-ratio", "0.7")
    sizes = {name: len(bank) for name, bank in load_file(banks).items()}
    assert sizes["all"] == sizes["fold/1"] == 70 and sizes["group/A"] == 2 * CELLS  # all it has


@pytest.mark.parametrize("bank", ["float32", "pca_float16"])
def test_banks_are_the_same_by_processes_by_threads_and_by_one_thread(data, monkeypatch, bank):
    folder, shards, splits = data
    options = ("--coreset-ratio", "0.5", "--bank-dtype", bank)
    forked = []
    monkeypatch.setattr(fit, "in_forks", lambda *args: forked.append(args) or in_forks(*args))
    banks, report = run_fit(folder, shards, splits, *options)
    expected = banks.read_bytes(), report.read_bytes()
    assert len(forked) == can_fork()
    run_fit(folder, shards, splits, *options, "--threads", "1")
    assert (banks.read_bytes(), report.read_bytes()) == expected
    monkeypatch.setattr("defectflow.detection.training_patches._FORKED", 0)
    run_fit(folder, shards, splits, *options)
    assert (banks.read_bytes(), report.read_bytes()) == expected
    assert len(forked) == can_fork()


def test_too_many_patches_are_reduced_image_by_image(data):
    folder, shards, splits = data
    banks, report = run_fit(folder, shards, splits, *WHOLE, "--max-patches", "50")  # of 100: half of each image
    found = load_file(banks)
    assert len(found["all"]) == 50 and len(found["group/A"]) == 20
    assert torch.equal(found["all"][-10:], found["group/A"][-10:])  # the same 10 of image "kept" in both
    assert read_json(report)["patches_available"] == 100 and read_json(report)["patches_read"] == 50
    everything = bank_of("good1", "good1~aug1", "good2", "good3", "kept")
    reduced, _ = run_fit(folder, shards, splits, "--coreset-ratio", "0.4", "--max-patches", "50")
    radius = torch.cdist(everything, load_file(reduced)["all"]).amin(1).max()
    first = torch.cdist(everything, found["all"]).amin(1).max()
    second = torch.cdist(found["all"], load_file(reduced)["all"]).amin(1).max()
    assert radius <= first + second


def test_banks_in_half_precision(data):
    folder, shards, splits = data
    banks, _ = run_fit(folder, shards, splits, *WHOLE, "--bank-dtype", "float16")
    torch.testing.assert_close(load_file(banks)["fold/1"], bank_of("good1", "good1~aug1", "good3", "kept").half())


def test_banks_along_their_own_principal_axes(data):
    folder, shards, splits = data
    banks, report = run_fit(folder, shards, splits, "--coreset-ratio", "0.5", "--bank-dtype", "pca_float16")
    found = load_file(banks)
    whole = bank_of("good1", "good1~aug1", "good3", "kept")  # of the other images, and before the coreset
    axes = found["fold/1/axes"]
    assert found["fold/1"].dtype == torch.float16 and axes.dtype == torch.float32
    torch.testing.assert_close(found["fold/1/mean"], whole.mean(dim=0))
    torch.testing.assert_close(axes.T @ axes, torch.eye(axes.shape[1]), rtol=0, atol=1e-6)
    shares = torch.linalg.svdvals(whole - whole.mean(dim=0)).square().cumsum(0)
    assert axes.shape[1] == int((shares / shares[-1] < 0.99).sum()) + 1
    assert read_json(report)["banks"]["fold/1"]["dimensions"] == axes.shape[1]
    lengths = torch.linalg.vector_norm(found["fold/1"].float(), dim=1)
    exact = torch.linalg.vector_norm((whole - whole.mean(dim=0)) @ axes, dim=1)
    assert (lengths[:, None] - exact).abs().amin(dim=1).max() < 2e-3


def test_images_without_the_part_are_not_learned(tmp_path):
    shard = write_shard(tmp_path / "0.safetensors", SHARDS[0] + SHARDS[1], absent=("good2", "bad1"))
    banks, report = run_fit(tmp_path, [shard], write_splits(tmp_path / "s.csv", SPLITS), *WHOLE)
    assert torch.equal(load_file(banks)["fold/0"], bank_of("good3", "kept"))
    assert read_json(report)["good_images_without_part"] == 1


def test_images_with_a_doubtful_mask_are_not_learned_unless_most_have_one(tmp_path, capsys):
    names, splits = SHARDS[0] + SHARDS[1], write_splits(tmp_path / "s.csv", SPLITS)
    banks, report = run_fit(
        tmp_path, [write_shard(tmp_path / "0.safetensors", names, doubtful=("good2", "bad1"))], splits, *WHOLE
    )
    assert torch.equal(load_file(banks)["fold/0"], bank_of("good3", "kept"))
    assert read_json(report)["good_images_with_doubtful_mask"] == 1
    assert "doubtful" not in capsys.readouterr().err
    plain, _ = run_fit(tmp_path, [write_shard(tmp_path / "1.safetensors", names)], splits, *WHOLE)
    learned = load_file(plain)["fold/0"]
    most = write_shard(tmp_path / "2.safetensors", names, doubtful=[name for name, *_ in names])
    banks, report = run_fit(tmp_path, [most], splits, *WHOLE)
    assert torch.equal(load_file(banks)["fold/0"], learned)
    assert read_json(report)["good_images_with_doubtful_mask"] == 0
    assert "good pictures are doubtful: they are learned from" in capsys.readouterr().err


def test_pixel_difference_keeps_the_mean_of_each_place(tmp_path):
    shard = write_shard(tmp_path / "0.safetensors", SHARDS[0] + SHARDS[1], pixels=True)
    banks, report = run_fit(tmp_path, [shard], write_splits(tmp_path / "s.csv", SPLITS), *PIXELS)
    expected = (patches_of("good3", False, True) + patches_of("kept", False, True)) / 2
    torch.testing.assert_close(load_file(banks)["group/A"], expected)
    assert read_json(report)["method"] == "pixel_difference"


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([(n, "1", *rest) for n, _, *rest in SPLITS], "no good image"),
        ([(n, label if n == "good1" else "1", *rest) for n, label, *rest in SPLITS], "without fold '0' no good image"),
    ],
)
def test_impossible_splits_are_told(data, splits, message):
    folder, shards, path = data
    write_splits(path, splits)
    with pytest.raises(UserError, match=message):
        run_fit(folder, shards, path)
    assert not (folder / "banks.safetensors").exists()


def test_shards_made_with_other_settings_are_refused(data):
    folder, shards, splits = data
    write_shard(shards[1], SHARDS[1], pixels=True)
    with pytest.raises(UserError, match=r"1\.safetensors: backbone is pixels, but test"):
        run_fit(folder, shards, splits)


def test_not_a_patch_file(data):
    data[1][0].write_text("no")
    with pytest.raises(UserError, match=r"0\.safetensors: not a patch file"):
        run_fit(*data)


def test_ratio_out_of_range(data):
    with pytest.raises(UserError, match=r"coreset_ratio: 1\.5 is greater than the maximum of 1"):
        run_fit(*data, "--coreset-ratio", "1.5")


def test_file_is_plain_safetensors(data):
    file = load_file(data[1][0])
    assert file["patches"].shape == (4 * CELLS, 6)
    assert file["start"].tolist() == [0, 20, 40, 60, 80]
    assert file["position"].dtype == torch.int32
    np.testing.assert_array_equal(file["affine"][2], [[1, 0, 2], [0, 1, 0]])


def test_images_of_a_fold_have_no_say_in_the_bank_without_it(data):
    folder, shards, splits = data
    options = ("--coreset-ratio", "0.5")
    before = load_file(run_fit(folder, shards, splits, *options)[0])
    patches = load_file(shards[0])["patches"]
    with safe_open(shards[0], "pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    names = [name for name, *_ in SHARDS[0]]
    start = int(tensors["start"][names.index("good1")])
    tensors["patches"][start : start + 5] = 50 * patches[start : start + 5].flip(1)
    save_file(tensors, shards[0], metadata=metadata)
    after = load_file(run_fit(folder, shards, splits, *options)[0])
    assert torch.equal(before["fold/0"], after["fold/0"]) and not torch.equal(before["all"], after["all"])


def test_networks_are_trained_on_pictures_and_an_interrupted_fit_goes_on(tmp_path, monkeypatch):
    config = {
        "backbone": "picture", "trained": False, "layers": ["picture"], "precision": "float32",
        "grid": list(picture_set.GRID), "fitted_size": [64, 64], "input_size": [64, 64], "foreground_only": True,
        "dilation": 4, "items": [
            {"image_id": row[0], "copy_of": "", "kind": "", "window": [0, 0, 64, 64], "frame": [64, 64]}
            for row in SPLITS
        ],
    }  # fmt: skip
    cells = np.arange(picture_set.GRID[0] * picture_set.GRID[1])
    with write_patches(tmp_path / "0.safetensors", config, 3 * picture_set.CELL**2) as writer:
        for seed in range(len(SPLITS)):
            writer.add(picture_set.patches(picture_set.picture(seed)), cells, np.eye(2, 3), True)
    splits = write_splits(tmp_path / "splits.csv", SPLITS)
    options = ("--method", "vae", "--steps", "2", "--latent", "4", "--width", "4")
    banks, report = run_fit(tmp_path, [tmp_path / "0.safetensors"], splits, *options, more=("--threads", "1"))
    whole, summary = load_file(banks), read_json(report)["banks"]
    assert summary.keys() == {"all", "fold/0", "fold/1", "fold/2", "group/A", "group/B"}
    assert summary["all"]["images"] == 4 and whole["all"].shape == (len(cells), 2)
    assert not torch.equal(whole["fold/0/code.weight"], whole["fold/1/code.weight"])

    train, kept = Vae.train, tmp_path / "banks.safetensors.training"
    trained = []

    def killed(training):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(training)
        return train(training)

    banks.unlink()
    monkeypatch.setattr(Vae, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        run_fit(tmp_path, [tmp_path / "0.safetensors"], splits, *options, more=("--threads", "1"))
    assert not banks.exists() and len(list(kept.iterdir())) == 3
    monkeypatch.setattr(Vae, "train", lambda training: trained.append(training) or train(training))
    run_fit(tmp_path, [tmp_path / "0.safetensors"], splits, *options, more=("--threads", "1"))
    # Fold 2 and group B leave out the same picture: one network is enough.
    assert len(trained) == len(summary) - 1 and not kept.exists()
    again = load_file(banks)
    assert whole.keys() == again.keys() and all(torch.equal(whole[key], again[key]) for key in whole)
