"""Blocks of networks: each takes (B, C, H, W) and documents the shape that it returns."""
