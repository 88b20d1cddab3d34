"""Translation: between our model and everybody else's.

Stateless, a function and nothing stored:

- `Translator`: private events in, few public ones out.
- `labkit.shop.erp`: a legacy system's message behind an anti-corruption layer.
- Tolerant reading and upcasters v1 → v2 → v3: `labkit.messages.Registry`.
- CloudEvents: `labkit.wire.to_cloudevent`.

Stateful, in tables of yours, so that a restart forgets nothing:

- `Correlator`: which of our lines an answer is about.

Source: Khononov, *Learning Domain-Driven Design*, ch. 9 ("Model translation"); Hohpe and Woolf,
*Enterprise Integration Patterns*, for each part by its name there.
"""

from __future__ import annotations

from labkit.translation.correlator import Correlator, Match
from labkit.translation.translator import Translator

__all__ = ["Correlator", "Match", "Translator"]
