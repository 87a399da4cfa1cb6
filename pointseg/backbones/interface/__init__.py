"""What every backbone takes and gives, the layers that all of them share, and networks of one's own."""
