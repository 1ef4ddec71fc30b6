"""What an operator sees: every metric with its meaning, unit and labels, and how logs are set up."""
