"""Lets these tests, and the processes they start, import the harness beside them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
