"""Translation: between our model and everybody else's.

Stateless, a function and nothing stored:

- `Translator`: private events in, few public ones out.
- `labkit.shop.erp`: a legacy system's message behind an anti-corruption layer.
- `labkit.messages.Registry`: tolerant reading, and upcasters v1 → v2 → v3;
  `labkit.shop.catalogue` has an event with both, and a frozen message of each version.
- `labkit.wire.to_cloudevent`: our envelope as a CloudEvent.

Stateful, in tables of yours, so that a restart forgets nothing:

- `Correlator`: which of our lines an answer is about.
- `Aggregator`: many parts in, one result out, complete or at its deadline.
- `Resequencer`: numbered items in any order in, in theirs out.
- `Enricher`: adds what a message lacks, from a copy that events keep.
- `DeadlineWorker`: lets the deadlines of the two in the middle fire by themselves.

Each method joins your transaction and never commits: the message's inbox row, what it changes
here and what is sent about it are stored together or not at all, whenever the process dies. It
also holds its group, conversation or key until you end: who touches several takes them in one
order (sorted), or two transactions wait for each other, and PostgreSQL ends one.

What is settled stays until you call `forget`, in the transaction that ends the order or from a
job of yours. Why not the cleaner, by age: what an inbox row guards against has a longest way, but
a late answer, a straggler or the next number of a key is a new message and may come at any age,
and would begin anew what was forgotten. Only your business knows when that is over.

Source: Khononov, *Learning Domain-Driven Design*, ch. 9 ("Model translation"); Hohpe and Woolf,
*Enterprise Integration Patterns*, for each part by its name there.
"""

from __future__ import annotations

from labkit.translation.aggregator import Added, Aggregate, Aggregator, Outcome
from labkit.translation.correlator import Correlator, Match
from labkit.translation.deadlines import DeadlineWorker
from labkit.translation.enricher import Enriched, Enricher
from labkit.translation.resequencer import GivenUp, Place, Resequencer, Sequenced
from labkit.translation.translator import Translator

__all__ = [
    "Added",
    "Aggregate",
    "Aggregator",
    "Correlator",
    "DeadlineWorker",
    "Enriched",
    "Enricher",
    "GivenUp",
    "Match",
    "Outcome",
    "Place",
    "Resequencer",
    "Sequenced",
    "Translator",
]
