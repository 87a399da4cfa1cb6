"""ScanNet and ScanNet200."""
