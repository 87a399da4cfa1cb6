"""What a labelled copy of a file gets: a class for each point, its colour, how sure it is, its height."""
