"""The commands: parse, make one specification, call the library once."""
