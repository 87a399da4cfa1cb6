"""Which points belong together, by cloud, cell or nearness, and what is computed over such groups."""
