"""The stores by themselves, without a queue or a service around them."""
