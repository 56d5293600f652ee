"""Weights: what exists, where it lies, whether it is whole."""
