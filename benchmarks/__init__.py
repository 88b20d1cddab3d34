"""Benchmarks: labkit beside a hand-written ceiling, in the same run, on the same servers.

A ceiling does the least that gives the same guarantee, with psycopg and redis-py and nothing in
between. So a ratio says what labkit costs, on whatever machine it is measured; a number of rows
per second says something about one machine on one day.
"""
