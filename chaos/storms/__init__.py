"""One module per storm: what is done to the service, and what must have happened for its verdict to count."""
