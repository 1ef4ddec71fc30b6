"""One module per framework, imported in the runner process only; none knows another."""
