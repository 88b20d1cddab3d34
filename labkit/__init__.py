"""labkit: reliable messaging on PostgreSQL and Redis Streams, to be read and to be used.

The promise:

- A committed event is published at least once; an event of a rolled-back transaction never.
- The effect of a message is applied exactly once per (consumer, message id), inside the inbox
  window: inbox row, effect and outgoing events are one transaction.
- Events with the same key are published and handled in commit order, with several relays and
  consumers, late commits, crashes, a loss in Redis, and redriven dead letters.
- A saga ends COMPLETED, COMPENSATED or visibly STUCK with its reason; it never vanishes.
- Any process may be killed or frozen at any instruction; the next one resumes within its lease.

"Exactly-once delivery" is not promised, here or anywhere; nor does the promise cover what a
handler does outside its database.

Reading order, one pattern a file:

    errors, clock, messages, wire        the words
    outbox, unit_of_work                 the event leaves with the commit
    inbox                                the effect happens once
    lease                                one owner per partition, and how the old one is shut out
    relay, backlog                       outbox → broker
    dispatch, consumer                   broker → handler
    batches, held, lanes, retries        retry, dead letter and redrive, in order
    projection, service                  read models; a bounded context ready to run
    translation/                         between our model and others'
    saga/, process_manager/              one process over several services
    deadline, retry, breaker/, bulkhead  calls to what fails, and policy, which puts them in order
    ports, transports/redis_streams      what a broker must do, and how Redis does it
    shop/                                two services that use all of it
    crash, testing/                      how it is proved
"""

__version__ = "0.1.0"
