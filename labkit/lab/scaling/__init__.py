"""Scaling out, with real processes: what the simulations say, seen on this machine.

Each module measures one thing and ends every process that it started. Real clocks differ from run
to run, so what a notebook compares are counts and bounds.
"""
