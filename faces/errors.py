"""What can go wrong with faces. Every message is a sentence that says what to do."""

from __future__ import annotations

from search.errors import SearchError


class DetectorUnavailable(SearchError):
    """The networks that find and tell faces apart are not here; the message says which file or command brings them."""

    for_guests = "Faces are not looked for here. Whoever runs this installation can bring the model."


class DetectorFault(SearchError):
    """A network failed on good input: the files are broken, or of another kind than they are taken for."""

    for_guests = "The model of faces failed. Whoever runs this installation can find out why."
