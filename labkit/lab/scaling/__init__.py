"""Scaling on real servers: more processes, on demand, and functions that come and go.

    consumers     the same messages, handled by 1, 2, 4 and 8 processes of one group
    autoscaler    workers that come with the backlog and go when it is gone
    functions     a small Lambda: batches go to processes that start cold and end when idle
    balancer      requests spread over four HTTP workers, one of them slow
    cluster       processes on one port: Node's `cluster`, and its twin in Python
    backpressure  a producer that looks at the stream and waits, and two that do not

`jobs` holds the messages of the first two and what a worker process does, `jobs_bench` is where
they are. `functions` stands on `mapping`, which brings them batches, `instances`, which are
processes, `runtime`, which runs in them, and `samples`, which are handlers. `http_workers` and
`acceptors` are the processes of `balancer` and `cluster`; `beside` has tables with theory beside
what was simulated. Nothing is imported here, so that a process starts with what it needs.

Guarantee: what they count was done by processes on PostgreSQL and Redis. `labkit.lab.simulations`
has a model of each.
Not guaranteed: the same figures twice. They depend on the machine, and on who else is at work.
"""
