"""A run derived again from what it stored, by the second implementation."""
