"""Point-in-time features: declarations of views and their computing."""
