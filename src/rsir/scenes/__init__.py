"""Rasters read window by window: bands, stretch, tiling."""
