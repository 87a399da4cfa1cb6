"""Scans and masks as files, and the grids they lie on."""
