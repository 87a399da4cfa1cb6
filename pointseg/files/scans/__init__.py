"""Files of scanners: KITTI's and nuScenes' bare tables, Leica's PTX, E57."""
