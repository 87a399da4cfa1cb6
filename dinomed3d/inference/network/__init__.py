"""From a volume to its mask: preprocessing, windows, networks, export."""
