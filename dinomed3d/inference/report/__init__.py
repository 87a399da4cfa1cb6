"""The report of a run: measures, flags, previews, HTML page, CSV table."""
