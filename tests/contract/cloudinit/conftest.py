"""Makes `recordings` importable: test modules are no package, and two of them share it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
