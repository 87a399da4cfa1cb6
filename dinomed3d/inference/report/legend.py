"""What the columns and flags of report.html mean, in the words that the page shows."""

from __future__ import annotations

from dataclasses import dataclass

from dinomed3d.inference.report.quality import (
    EXTENT_RATIO,
    LOW_CERTAINTY,
    SPACING_RATIO,
    VOLUME_RATIO,
)


@dataclass(frozen=True)
class Column:
    """A column of the table of results."""

    title: str
    """Its head."""
    means: str
    """What it shows, in full sentences."""
    kind: str = ""
    """What it is sorted by, `text` or `number`; empty where it is not sorted."""
    first: str = ""
    """Order after the first click."""


COLUMNS = (
    Column(
        "Preview",
        "Three slices of the scan through the labelled region, with the labels drawn over them. They are for a first "
        "look, not for diagnosis.",
    ),
    Column(
        "Case",
        "The name of the scan below the input folder, with links to its results and notes on choices that were made "
        "for it.",
        "text",
        "ascending",
    ),
    Column(
        "Volume, ml",
        "The volume of each label in the mask: its voxels times the volume of a voxel. Components are its parts that "
        "touch by no face; 'at the border' says that it reaches the end of the scan and may be cut off there.",
        "number",
        "descending",
    ),
    Column(
        "Flags",
        "What a person should look at in this case; the column sorts by their number.",
        "number",
        "descending",
    ),
    Column(
        "Certainty",
        "The mean probability that the network gives to its own choice in all labelled voxels, from 0 to 1. It is no "
        "measure of correctness: networks can be certain and wrong.",
        "number",
        "ascending",
    ),
    Column(
        "Time, s",
        "The seconds of all steps of the case, from reading to writing; the steps show when the pointer rests on the "
        "number. Steps of different cases overlap, so that a run takes less than their sum.",
        "number",
        "descending",
    ),
)
"""The columns of the table of results, in order."""

FLAGS = {
    "empty mask": "No voxel was labelled. The scan may not show what the model looks for, or its intensities, "
    "orientation or channels are others than in training.",
    "… ml, in training …": f"The volume of a label is more than {VOLUME_RATIO:g} times below the smallest or above the "
    "largest one in the training set.",
    "not found": "A label is missing that every scan of the training set has.",
    "spacing, extent": f"The voxels are more than {SPACING_RATIO:g} times, or the scan is more than {EXTENT_RATIO:g} "
    "times, smaller or larger along an axis than any of the training set.",
    "intensity": "The median of the labelled voxels lies outside the range of 99 % of the labelled voxels in training, "
    "as with wrong units.",
    "low certainty": f"The mean probability of what was labelled is below {LOW_CERTAINTY:g}.",
    "stored as …": "The scan lies in the file in another orientation than most scans of this run.",
    "localizer": "The region that was predicted was not found, or the mask touches its border and may be cut off.",
    "corrected by hand": "The mask has changed since it was predicted and is kept. What could not be made of the "
    "corrected mask is named: it is of the prediction, or of an earlier correction.",
    "no mask of the original slices, no statistics, no label files": "The mask is complete, but this could not be made "
    "of it, for the reason given.",
    "no DICOM segmentation, no RT structure set": "The mask is complete, but could not be written as a DICOM object, "
    "for the reason given.",
}
"""Beginnings of flags -> what they mean."""
