"""nuScenes-lidarseg."""
