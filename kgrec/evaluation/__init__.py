"""Offline evaluation to the conventions of record."""
