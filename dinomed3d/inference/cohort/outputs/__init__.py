"""The output folder of a run: records, files of cases, and what earlier runs have left in it."""
