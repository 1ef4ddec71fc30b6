"""Outbox in, signed HTTP deliveries out; and what a receiver needs to trust them."""
