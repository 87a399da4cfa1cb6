"""Prediction of hospital folders: find, read, run the network, export to the input grid, report."""
