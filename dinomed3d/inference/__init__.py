"""Prediction of folders of scans: find, read, run the network, export to the input grid, report."""
