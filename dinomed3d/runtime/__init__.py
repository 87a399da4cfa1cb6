"""Errors, devices, memory limits, atomic files and safe readers, shared by all packages."""
