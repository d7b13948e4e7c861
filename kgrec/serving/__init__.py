"""What answers: index, recommendations, versions and their gate."""
