"""The colours of labels, in pictures as in DICOM."""

COLOURS = ("#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#0072b2")
"""Okabe and Ito's palette: distinguishable with any colour vision. Label 8 has the colour of 1 again."""
