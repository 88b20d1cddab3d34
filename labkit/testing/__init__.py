"""Tools that prove a flow: for tests, for the demonstration, and for your own services.

Reading order, from the proof to what provokes it:

`auditor` lays the books of all sides beside each other (`ledgers` reads them, `findings` words
the result) and names the first event that was lost, invented, doubled or reordered. It only
reads, and it says which region it judged, so that retention is no loss. `audit` adds what the
bookshop promises besides: stock, orders and view agree.

`faults` switches crash points on for a block of Python, and back afterwards: what
`LABKIT_FAULTS` does for a process.

`processes` starts workers that may be killed and frozen, in milliseconds.

`crash_runner` really kills a worker at every crash point, at its 1st and 7th passage, lets
healthy ones finish, and audits; a point that nobody reaches is an error. `sample` holds the two
small services that it breaks; bring your own as a `Scenario`.

`antipatterns` is a switchboard: the same orders and mishaps, with one piece of the flow built as
it should not be, and the auditor's verdict on each; labkit's own pieces pass.

`proxy` is a bad network before PostgreSQL or Redis: slow, silent, refusing, or cut just when the
answer to COMMIT was on its way.
"""
