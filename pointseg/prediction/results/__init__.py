"""What a prediction gives: classes of points, their codes, heights, pictures, and the record that says how."""
