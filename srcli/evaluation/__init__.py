"""Measuring: metrics, data sets, the papers' numbers, tables."""
