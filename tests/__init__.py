"""What the tests share: where the checkout lies."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout."""
