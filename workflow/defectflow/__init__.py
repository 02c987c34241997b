"""defectflow: turn photographs of one part into a calibrated good/bad inspector with heatmaps."""

import os

# Idle OpenMP threads would spin, and on cores shared with another job they keep it from what it is waiting for: a
# SAM 2.1 decoder step beside one other process took 6.4 s instead of 0.4 s. Read when torch is loaded, later.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
