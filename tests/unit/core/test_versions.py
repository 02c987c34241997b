import platform

import numpy as np
from defectflow.core.versions import versions


def test_installed_packages_have_a_version_and_others_no_entry():
    assert versions(["numpy", "no-such-package"]) == {"python": platform.python_version(), "numpy": np.__version__}
