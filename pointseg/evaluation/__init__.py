"""Testing: test-time augmentation, tiling, scores, cross-validation, robustness."""
