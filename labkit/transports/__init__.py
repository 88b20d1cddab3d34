"""Brokers behind the ports of `labkit.ports`, one module each."""
