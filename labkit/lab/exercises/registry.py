"""The exercises of all notebooks, by id."""

from __future__ import annotations

from collections.abc import Mapping

from labkit.errors import LabkitError
from labkit.lab.exercises.advancing import ADVANCING
from labkit.lab.exercises.answering import ANSWERING
from labkit.lab.exercises.applying import APPLYING
from labkit.lab.exercises.classifying import CLASSIFYING
from labkit.lab.exercises.compensating import COMPENSATING
from labkit.lab.exercises.deciding import DECIDING
from labkit.lab.exercises.exercise import Exercise
from labkit.lab.exercises.handling import HANDLING
from labkit.lab.exercises.placing import PLACING
from labkit.lab.exercises.publishing import PUBLISHING
from labkit.lab.exercises.relaying import RELAYING
from labkit.lab.exercises.reserving import RESERVING
from labkit.lab.exercises.showing import SHOWING
from labkit.lab.exercises.storing import STORING
from labkit.lab.exercises.waiting import WAITING

EXERCISES: Mapping[str, Exercise] = {
    each.id: each
    for each in (
        PUBLISHING,
        APPLYING,
        PLACING,
        HANDLING,
        ADVANCING,
        CLASSIFYING,
        WAITING,
        DECIDING,
        STORING,
        RELAYING,
        RESERVING,
        ANSWERING,
        SHOWING,
        COMPENSATING,
    )
}


def find(exercise_id: str) -> Exercise:
    """Return an exercise.

    Raises:
        LabkitError: when there is none of this id.
    """
    if exercise_id not in EXERCISES:
        raise LabkitError(f"No hay ejercicio {exercise_id!r:.40}: hay {', '.join(EXERCISES)}.")
    return EXERCISES[exercise_id]
