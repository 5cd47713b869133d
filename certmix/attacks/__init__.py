"""Attacks: each one function `(model, images, labels, norm, eps, ...) -> adversarials`."""

from certmix.attacks.pgd import pgd

__all__ = ["pgd"]
