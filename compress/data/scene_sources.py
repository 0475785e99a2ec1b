"""The synthetic scenes by what sounds in front: many narrow classes, to pre-train networks on.

Five classes ask a network for little: a dog and the rain are both "other". What tells 150 sources
apart is of use for a data set with few recordings, whose network starts from such weights.
"""

from __future__ import annotations

from compress.data.scenes import CLASS_NAMES

# As the synthesiser names them; sources too rare to learn are "further" ones of their class.
_SOURCES: tuple[str, ...] = (
    """
    applause, ball, big dog, birds, boiling pot, bottle crate, bottles, boxes, brushing, cat,
    coins, conveyor, cow, crackling, crow, dishes, dog, door, dripping, duck, fan, far road,
    flapping sail, footsteps, footsteps on gravel, frog, glass, goat, grindstone, gull,
    hammering, hand crank, hen, insects, keys, knocking, loose shutter, mains hum, metal,
    monkey, parrot, pipes, playpen, printer, pulley, rain, room tone, running water, rustling,
    sawing, sea waves, seal, sewing machine, sheep, spinning wheel, thunder, ticking, typing,
    vacuum cleaner, washing machine, wind, wind chimes
    """,
    """
    accordion, band, banjo, celesta, cello, church organ, clarinet, distorted guitar, drums,
    duo, electric piano, flute, glockenspiel, guitar, harp, harpsichord, horn, lute, marimba,
    mouth organ, music box, oboe, organ, pad, piano, recorder, saxophone, song, steel drum,
    strings, synthesiser, trio, trombone, trumpet, vibraphone, viola, violin
    """,
    """
    babble, child laughing, child shouting, child talking, child whispering, man crying, man
    laughing, man shouting, man talking, man whispering, small child talking, small child
    whispering, woman crying, woman laughing, woman shouting, woman talking, woman whispering
    """,
    """
    chain saw, diesel car, drill, electric car, generator, helicopter, jet, lawn mower, lorry,
    motor boat, motorcycle, one-cylinder diesel, petrol car, propeller, pump motor, servo,
    tractor, train, tram
    """,
    """
    alarm clock, car alarm, clock bell, fire bell, reversing beeper, ringtone, siren hi-lo,
    siren sweep, siren wail, siren warble, siren yelp, smoke detector, telephone bell
    """,
)

SOURCE_NAMES = tuple(
    f"{name}: {source}"
    for name, sources in zip(CLASS_NAMES, _SOURCES, strict=True)
    for source in (*" ".join(sources.split()).split(", "), "further")
)
"""Class names of the scenes by source, in the order of :func:`source_label`."""

_NUMBERS = {name: number for number, name in enumerate(SOURCE_NAMES)}
_PLAYED = ("solo of ", "pads of ")


def source_label(label: int, foreground: str) -> int:
    """Index into SOURCE_NAMES of a scene of class ``label`` with this source in front.

    Of several sources the first counts; music for one instrument is known by the instrument, for
    more by their number, and babble is one source however many babble.
    """
    name = foreground.split(" and ")[0]
    for played in _PLAYED:
        if name.startswith(played):
            name = name.removeprefix(played).split(",")[0]
    name = name.split(" of ")[0]
    whole = f"{CLASS_NAMES[label]}: {name}"
    return _NUMBERS.get(whole, _NUMBERS[f"{CLASS_NAMES[label]}: further"])
