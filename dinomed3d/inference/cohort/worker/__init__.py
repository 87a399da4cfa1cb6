"""The process that predicts: a model in memory, and the steps of a case from its files to its record."""
