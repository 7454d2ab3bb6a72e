"""Medical image segmentation with spatially adaptive networks: one set of weights for every voxel spacing."""

__version__ = "0.1.0"
