"""What the dashboard shows: stored results, read and chosen, without any widget."""
