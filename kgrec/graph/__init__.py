"""The knowledge graph over items and entities, and paths in it."""
