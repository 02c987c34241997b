import gc
import subprocess
import sys

import pytest
from defectflow.core.kept_memory import uncollected

# Ten megabytes that are freed and allocated again: pages that the kernel has to clear a second time.
CODE = """
import resource
import numpy as np
from defectflow.core.kept_memory import keep_memory
if {keep}:
    keep_memory(2**28)
for _ in range(3):
    np.ones(10_000_000, np.uint8), np.ones(40_000_000, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(10_000_000, np.uint8), np.ones(40_000_000, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="malloc is told so on Linux only")
def test_memory_is_not_cleared_again():
    faults = [
        int(subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], check=True, capture_output=True).stdout)
        for keep in (False, True)
    ]
    assert faults[1] < 0.1 * faults[0]


def test_garbage_is_collected_again_after_the_block_and_after_an_error():
    before = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() > before
    gc.unfreeze()
    with pytest.raises(KeyError), uncollected():
        raise KeyError
    assert gc.isenabled() and gc.get_freeze_count() == 0
