"""Reading scans and writing masks: NIfTI and the formats of ITK."""
