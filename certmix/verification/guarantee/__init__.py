"""Guarantee files: what is promised, what must be drawn for it, and whether it holds."""
