"""Simulations: seeded models of what no real run shows in two seconds.

Each module is one model. Its docstring says what is modelled, what is assumed and what the model
does not show; its figures are compared with theory, or with ranges that a test asserts.

    Retrying       backoff, delays, metastable, amplification, timeouts, deadlines
    Breaking       trip, pipeline_order, bulkheads
    Limiting       adaptive_limit, hedging
    Scaling        queueing, balancing, hashing, autoscaling, serverless, partial_batch, usl

Guarantee: the same seed gives the same numbers; nothing sleeps, and no clock is read.
Not guaranteed: that your system behaves like a model. Measure it.
"""
