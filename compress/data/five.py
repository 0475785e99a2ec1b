"""Sounds of other vocabularies mapped to the five classes of the AudioBots report.

``five_classes.json`` gives every node of the AudioSet ontology its name, its class (or
"ambiguous": between two classes, such as singing) and its parents, and every ESC-50 category its
node. What is ambiguous or unknown is left out of training and counted.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

REPORT_CLASSES = ("other", "music", "human voice", "engine sounds", "alarm")

_AMBIGUOUS = "ambiguous"


@dataclass(frozen=True)
class _Ontology:
    class_of: dict[str, str | None]  # node id -> one of the five, or None where ambiguous
    id_of: dict[str, str]  # plain name -> node id
    ancestors: dict[str, frozenset[str]]
    esc50: dict[str, str]


@functools.cache
def _ontology() -> _Ontology:
    text = resources.files("compress.data").joinpath("five_classes.json").read_text("utf-8")
    table = json.loads(text)
    nodes = table["nodes"]
    ancestors: dict[str, frozenset[str]] = {}

    def above(node: str) -> frozenset[str]:
        if node not in ancestors:
            parents = nodes[node][2]
            ancestors[node] = frozenset(parents).union(*(above(parent) for parent in parents))
        return ancestors[node]

    for node in nodes:
        above(node)
    return _Ontology(
        class_of={i: None if row[1] == _AMBIGUOUS else row[1] for i, row in nodes.items()},
        id_of={plain(row[0]): i for i, row in nodes.items()},
        ancestors=ancestors,
        esc50=table["esc50"],
    )


def plain(name: str) -> str:
    """A name without case, punctuation and joining words, to compare 'Car_horn' and 'car horn'."""
    return " ".join(w for w in re.findall(r"[a-z0-9]+", name.lower()) if w != "and")


def class_of_esc50(category: str) -> str | None:
    """The class of an ESC-50 category; None where it is ambiguous or not one of the fifty."""
    ontology = _ontology()
    node = ontology.esc50.get(category)
    return ontology.class_of[node] if node else None


def class_of_node(node: str) -> str | None:
    """The class of an AudioSet id such as ``/m/04rlf``; None where ambiguous or unknown."""
    return _ontology().class_of.get(node)


def class_of_name(name: str) -> str | None:
    """The class of one of the five names, an ESC-50 category or an AudioSet name; else None."""
    ontology = _ontology()
    wanted = plain(name)
    for known in REPORT_CLASSES:
        if wanted in (plain(known), _SHORT_NAMES.get(known)):
            return known
    by_category = class_of_esc50(wanted.replace(" ", "_"))
    if by_category is not None or wanted.replace(" ", "_") in ontology.esc50:
        return by_category
    return class_of_node(ontology.id_of.get(wanted, ""))


_SHORT_NAMES = {"human voice": "voice", "engine sounds": "engine"}


def classes_of_nodes(nodes: Iterable[str]) -> set[str | None]:
    """Classes of a clip's AudioSet ids, judged by its most specific ones; None = ambiguous.

    Data sets such as FSD50K add all ancestors of a label (a doorbell is also a door and a domestic
    sound). An ancestor says nothing that its descendant does not say better, so it is passed over.
    """
    ontology = _ontology()
    given = set(nodes)
    implied = frozenset().union(*(ontology.ancestors.get(node, frozenset()) for node in given))
    return {class_of_node(node) for node in given - implied}
