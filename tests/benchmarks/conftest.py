"""The benchmarks are no part of an installed package; they are tested where the source tree is."""

import sys
from pathlib import Path

# Behind everything else, so that an installed package is not shadowed by the source tree.
sys.path.append(str(Path(__file__).resolve().parents[2]))
