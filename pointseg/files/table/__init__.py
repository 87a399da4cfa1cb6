"""Tables of points in files: rows that are read a piece at a time, and the error of a malformed one."""
