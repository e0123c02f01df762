"""Blocks, (B, C, H, W) in, a documented shape out."""
