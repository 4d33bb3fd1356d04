"""Where the checkout is; importing this puts the book's extensions on Python's path."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "site" / "extensions"))
