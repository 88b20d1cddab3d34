"""The bench: what the workbook stands on and no library code imports.

Servers to run against, faults to inject, charts to read. Nothing below this package knows it.
"""
