"""nnU-Net's preprocessing, sliding window and export, in bounded memory."""
