import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.finding.candidate_files import Candidates, read_all, write
from striped_discs import striped_discs


@pytest.fixture(scope="module")
def parts():
    return striped_discs()


def test_candidates_of_two_shards_come_back_in_the_order_of_their_ids(parts, tmp_path):
    squares, features, figure, _ = parts
    for name, chosen in (("a", [0, 3]), ("b", [1, 2, 4])):
        ids = [f"img_{k}" for k in chosen]
        lists = ([values[k] for k in chosen] for values in (squares, features, list(figure)))
        told = Candidates(
            ids, [f"{i}.png" for i in ids], [(300, 400)] * len(ids), *lists, [0.1] * len(ids), [0.2] * len(ids)
        )
        write(tmp_path / name, told, np.random.default_rng(0))
    write(tmp_path / "none", Candidates(*[[]] * 8), np.random.default_rng(0))
    back = read_all([tmp_path / name for name in ("a", "none", "b")])
    assert back.image_ids == [f"img_{k}" for k in range(5)] and back.sizes[0] == (300, 400)
    assert all((a == b).all() for a, b in zip(back.squares, squares, strict=True))
    for own, other in zip(back.features, features, strict=True):
        own, other = own.astype(float).ravel(), other.astype(float).ravel()
        assert np.corrcoef(own, other)[0, 1] > 0.95  # 96 of 384 components, and noise


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x").write_text("no tensors")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        read_all([tmp_path / "x"])
    with pytest.raises(UserError, match="no such file"):
        read_all([tmp_path / "y"])


def test_what_networks_of_the_user_see_comes_back_with_its_photographs(parts, tmp_path):
    squares, features, figure, _ = parts
    for name, k in (("a", 1), ("b", 0)):
        lists = ([values[k]] for values in (squares, features, list(figure)))
        told = Candidates([f"img_{k}"], ["x.png"], [(300, 400)], *lists, [0.1], [0.2], "", [figure[[k, k]] * (k + 1)])
        write(tmp_path / name, told, np.random.default_rng(0))
    write(tmp_path / "none", Candidates(*[[]] * 8), np.random.default_rng(0))
    back = read_all([tmp_path / name for name in ("a", "none", "b")])
    assert [one.shape for one in back.others] == [figure[[0, 0]].shape] * 2
    np.testing.assert_array_equal(back.others[1], figure[[1, 1]] * 2)
    assert len(read_all([tmp_path / "none"]).others) == 0
