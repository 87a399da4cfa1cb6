"""The colours of labels, in pictures, reports and colour tables as in DICOM."""

COLOURS = ("#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#0072b2")
"""Okabe and Ito's palette: distinguishable with any colour vision. Label 8 has the colour of 1 again."""


def rgb(value: int) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) of a mask's value from 1 on."""
    colour = COLOURS[(value - 1) % len(COLOURS)]
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
