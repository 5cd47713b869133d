"""A second implementation of every bound and radius, straight from the formulas: scipy, no kernels."""
