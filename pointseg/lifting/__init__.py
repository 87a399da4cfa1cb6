"""Features of posed images on the points of any cloud, as a tool: no training, no labels."""
