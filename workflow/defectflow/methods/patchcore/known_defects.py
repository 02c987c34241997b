"""What a bank learns later from people: patches that are good after all, and patches of defects that were missed.

numpy and torch alike.
"""

from typing import Any

# Tensors of a bank beside its own patches, in the coordinates of these.
GOOD_AFTER_ALL, DEFECTS = "good_after_all", "defects"


def toward_defects(good: Any, defect: Any) -> Any:
    """Distance of patches from what is good, increased where a known defect is nearer than anything good.

    ``good + max(0, good - defect)``: at most twice the distance, for a copy of a known defect. Where good patches are
    nearer the distance stays as it is, so that good photographs keep their scores, and so do unknown defects.

    Args:
        good: float32 (p,), distance of each patch to the nearest good one.
        defect: float32 (p,), to the nearest one of a known defect.

    >>> import numpy as np
    >>> toward_defects(np.array([1.0, 1.0, 1.0]), np.array([0.0, 0.75, 3.0])).tolist()
    [2.0, 1.25, 1.0]
    """
    return good + (good - defect).clip(min=0)
