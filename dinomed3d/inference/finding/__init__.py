"""Cases below a folder: scans of any format, under any names, told apart or refused."""
