"""What names kinds in an inspector: the same descriptors, probabilities and limits as the stages, from a file."""

import numpy as np
import pytest
from defectflow.classification.cross_validation import cross_validate, judge_new, namer_of
from defectflow.classification.heads.fit_head import fit_head
from defectflow.classification.heads.head_arrays import Head
from defectflow.classification.kind_namer import UNKNOWN, KindNamer
from defectflow.classification.settings import KindSettings
from defectflow.core.files import UserError
from kinds_set import described, manifest_of, patches_of


def settings(**given):
    return KindSettings.from_dict(given, "kinds").only_for("classify")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return described(tmp_path_factory.mktemp("namer"), manifest_of({"good": 12, "a": 6, "b": 6, "c": 6}, unlabelled=4))


@pytest.mark.parametrize("given", [{}, {"head": "nearest"}])
def test_a_namer_from_its_file_says_what_the_stages_say_of_new_photographs(found, tmp_path, given):
    namer = namer_of(found, cross_validate(found, settings(**given)), settings(**given))
    namer.save(tmp_path / "namer.safetensors")
    again = KindNamer.load(tmp_path / "namer.safetensors")
    judged = judge_new(found, namer)
    kind, share = judged.if_bad
    for number in range(4):
        patches = patches_of(f"new-{number:02d}").numpy()
        assert again.describe(patches) == pytest.approx(found.every[30 + number], abs=1e-5)
        name, chance = again.name(patches)
        assert name == (UNKNOWN if judged.unknown[number] else namer.names[kind[number]])
        assert chance == pytest.approx(share[number], abs=1e-4)


def test_what_is_farther_than_the_limit_is_unknown(found):
    namer = namer_of(found, cross_validate(found, settings()), settings())
    patches = patches_of("b-77").numpy()
    far = namer.known.novelty(namer.describe(patches)[None])[0]
    assert namer._replace(limit=far + 1e-6).name(patches)[0] == "b"
    assert namer._replace(limit=far - 1e-6).name(patches)[0] == UNKNOWN


@pytest.mark.parametrize("given", [{}, {"head": "nearest"}, {"head": "trained", "epochs": 3}, {"balance": "reslt"}])
def test_a_head_is_its_arrays(given):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)), np.repeat([0, 2], 10)
    head = fit_head(x, y, 3, settings(**given))
    assert np.array_equal(Head.of(head.tensors())(x), head(x)) and head(x).shape == (20, 3)


def test_another_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "namer.safetensors"
    with pytest.raises(UserError, match=r"namer.safetensors: no such file$"):
        KindNamer.load(path)
    path.write_bytes(b"8" * 40)
    with pytest.raises(UserError, match=r"namer.safetensors: not a classifier of kinds \(.*; make it again\)$"):
        KindNamer.load(path)
