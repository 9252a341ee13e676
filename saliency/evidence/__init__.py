"""Patch logits at the starts of a grid: computed, kept on disk, and where they lie."""
