"""Preprocessing, sliding window and export like nnU-Net, in bounded memory."""
