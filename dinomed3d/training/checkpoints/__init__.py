"""Checkpoints of plain data: written whole, resumed exactly."""
