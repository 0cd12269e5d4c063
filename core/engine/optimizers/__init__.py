"""Steppers drive torch optimizers: a file per kind, which an optimizer's spec names by import string."""
