"""Declarations of features: what they are, never how they are computed."""
