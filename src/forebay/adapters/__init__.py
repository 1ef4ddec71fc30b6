"""One folder per technology; none knows another. `assembly` decides which meets which role."""
