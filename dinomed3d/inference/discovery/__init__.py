"""Finding the cases in folders and archives of scans."""
