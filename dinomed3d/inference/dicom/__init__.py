"""DICOM: series in, segmentations out."""
