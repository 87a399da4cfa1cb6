"""Clouds in a browser: thinned, coloured by what their points carry, with the cameras that saw them."""
