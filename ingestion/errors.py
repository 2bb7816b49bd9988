"""What can go wrong on the way from files to the catalogue. Every message is a sentence that says what to do."""

from __future__ import annotations

from search.errors import SearchError


class IngestionError(SearchError):
    """Base of ingestion's own errors."""


class CrawlError(IngestionError):
    """A crawl that could not be started or finished."""


class SourceGone(CrawlError):
    """The source's folder is not there; nothing is concluded from that."""


class CrawlBusy(CrawlError):
    """Somebody else is crawling this source just now."""


class BadSource(CrawlError):
    """This folder cannot be a source: it is no folder, holds another source, or is the program's own."""


class BadPattern(CrawlError):
    """A glob that cannot be understood."""


class WorkerStopped(IngestionError):
    """Something other than a file stands in the way: a full disk, a broken encoder, a disk that does not answer."""


class BadStage(IngestionError):
    """A stage or space that does not exist; those that do are named."""


class BadArchive(IngestionError):
    """An archive of vectors, or its list, that cannot be used; the message says why and what would do."""
