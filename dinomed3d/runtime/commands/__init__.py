"""What every command does alike: parse, end, report errors in one line, print JSON, heed signals."""
