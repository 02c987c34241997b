import subprocess
import sys

import pytest
from defectflow.backbones.input_statistics import IMAGENET_MEAN, IMAGENET_STD, input_statistics


@pytest.mark.parametrize("name", ["patch-nano", "patch_nano", "pixels"])
def test_our_own_inputs_are_normalised_as_imagenet_is(name):
    assert input_statistics(name) == (IMAGENET_MEAN, IMAGENET_STD)


def test_our_own_inputs_need_no_torch():
    code = "import sys; from defectflow.backbones.input_statistics import input_statistics as of; of('patch-nano'); "
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)
