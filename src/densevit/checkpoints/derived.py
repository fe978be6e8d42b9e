"""The card of weights that were made from others: what these were, and the licence that follows from theirs."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from densevit.checkpoints.hub import SCHEME, kind_of, local_path
from densevit.checkpoints.native import Card
from densevit.checkpoints.open import stated_card
from densevit.io import file_sha256
from densevit_runtime.licences import announce, in_words, is_stricter, strictest, terms, usual_form

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parent:
    """Weights that others were made from.

    Attributes:
        role: what they were used for, such as "initialised from".
        name: by which people know them; of a file, without its folder.
        card: their own.
        sha256: of their file.
    """

    role: str
    name: str
    card: Card
    sha256: str


def parents(sources: Iterable[tuple[str, str]]) -> list[Parent]:
    """The weights of some sources, each given as its role and what ``open_model`` takes.

    Raises:
        CheckpointError: if there is no such model.
    """
    found = []
    for role, source in sources:
        card, path = stated_card(source)
        announce(source, card.licence, _log, has_publisher=source.startswith(SCHEME))
        found.append(Parent(role, _name(source, card), card, file_sha256(path)))
    return found


def derived_card(card: Card, made_from: Iterable[Parent]) -> Card:
    """A card with what its weights were made from, and the strictest of the licences, said in words.

    A licence that the card states is kept, unless one of the others is stricter: that binds what is made from it.
    """
    made_from = list(made_from)
    if not made_from:
        return card
    licence, why = _licence(card.licence, made_from)
    lines = [*card.provenance]
    for parent in made_from:
        lines.append(f"{parent.role} {parent.name}: licence {in_words(parent.card.licence)}; sha256 {parent.sha256}")
        lines += [f"{parent.name}: {line}" for line in parent.card.provenance]
    lines.append(f"licence of these weights: {in_words(licence)}; {why}")
    data = dict.fromkeys(one.data_licence for one in (card, *(parent.card for parent in made_from)))
    return card.model_copy(
        update={
            "licence": licence,
            "provenance": tuple(dict.fromkeys(lines)),
            "data_licence": "; ".join(filter(None, data)),
        }
    )


def _licence(stated: str, made_from: list[Parent]) -> tuple[str, str]:
    """The licence of the derived weights, and where it comes from."""
    all_licences = [parent.card.licence for parent in made_from]
    if terms(stated) == "unstated":
        inherited = strictest(all_licences)
        several = len({usual_form(licence) for licence in all_licences}) > 1
        return inherited, f"{'the strictest' if several else 'that'} of those that they were made from"
    binding = strictest(licence for licence in all_licences if terms(licence) != "unstated")
    if terms(binding) != "unstated" and is_stricter(binding, stated):
        _log.warning(
            "the card states the licence %s, but these weights are made from others under %s, which stays theirs",
            stated,
            in_words(binding),
        )
        return binding, f"that of those that they were made from, since it is stricter than {stated}"
    return stated, "as stated by whoever made them"


def _name(source: str, card: Card) -> str:
    """The source without the folder that it is in here, with the name on the card where that says more."""
    path = local_path(source)
    if source.startswith(SCHEME) or kind_of(path) == "none":
        return source
    own = path.resolve().name
    return own if card.name in ("", own) else f"{card.name} ({own})"
