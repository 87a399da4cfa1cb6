"""What a plan says of itself: every decision with its reason, as rows, as a table and as plain data."""
