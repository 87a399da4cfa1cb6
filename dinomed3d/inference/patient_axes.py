"""The axes of a patient: left, posterior, superior in DICOM and ITK (LPS); right, anterior, superior in NIfTI (RAS)."""

from __future__ import annotations

import numpy as np

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""(4, 4) positions in mm; the same for both directions."""
