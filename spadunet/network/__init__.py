"""Spatially adaptive networks and their parts."""
