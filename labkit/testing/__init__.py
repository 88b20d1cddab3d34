"""Tools that prove a flow: for tests, for the demonstration, and for your own services."""
