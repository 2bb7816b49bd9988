"""What can go wrong in the catalogue and in searching. Every message is a sentence that says what to do."""

from __future__ import annotations

from typing import Any


def runs_the_server(user: Any) -> bool:
    """Whether this person may read of the server's folders, settings and hashes: staff, and the command line (None)."""
    return user is None or bool(user.is_staff)


class SearchError(Exception):
    """Base of the catalogue's own errors.

    The message may name folders, settings and hashes of the server where only those who run it can mend the
    matter. `for_guests` then says the same without them, for everybody else.
    """

    for_guests = ""

    def __init__(self, sentence: str = "", *, for_guests: str = "") -> None:
        super().__init__(sentence)
        self.for_guests = for_guests or self.for_guests

    def said_to(self, user: Any) -> str:
        """The sentence as this person may read it."""
        return str(self) if runs_the_server(user) else self.for_guests or str(self)


class Unreadable(SearchError):
    """A file that cannot become pixels; the message is the reason in one sentence."""


class TooLarge(Unreadable):
    """More pixels than IMAGESEARCH_MAX_MEGAPIXELS allows."""


class TooSmall(Unreadable):
    """A side shorter than IMAGESEARCH_MIN_SIDE."""


class TooSlow(Unreadable):
    """Reading took longer than IMAGESEARCH_FILE_SECONDS and was stopped."""


class EncoderUnavailable(SearchError):
    """The encoder's weights are not here; the message says which command or file brings them."""

    for_guests = "The model is not here. Whoever runs this installation can bring it."


class EncoderFault(SearchError):
    """The encoder itself failed on good input (out of memory that halving did not cure, broken weights)."""

    for_guests = "The model failed. Whoever runs this installation can find out why."


class SpaceMismatch(SearchError):
    """A space was opened with a different encoder than the one that made it; both are named."""

    for_guests = "The pictures were read by another model than the one that is here now."


class NoSuchSpace(SearchError):
    """A space that is not there, or not any more."""


class IndexNotMade(SearchError):
    """An approximate index, or the look-alikes, were not made; the message says why."""


class SwitchRefused(SearchError):
    """A space that should not serve now; the message says why, and how to have it all the same."""


class BadQuery(SearchError):
    """What was typed or clicked cannot be searched; the message says what would be understood."""

    part: Any = None
    """The `search.filters.Term` that is wrong, as it was typed; None when it is no filter."""


class NotAllowed(SearchError):
    """This person may not change these images."""


class StoreFault(SearchError):
    """The embedding file cannot be written or is not what the database says."""

    for_guests = (
        "What the program keeps about the pictures cannot be read or written just now. "
        "Whoever runs this installation can mend it."
    )


class BadValue(SearchError):
    """A tag name, rating or title that cannot be kept; the message says what can."""
