"""Training in several processes: what starts them, and tables of vectors that they share out among themselves."""
