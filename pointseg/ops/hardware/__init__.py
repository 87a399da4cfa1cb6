"""What follows from the hardware: how work is cut into pieces and threads, and which library multiplies."""
