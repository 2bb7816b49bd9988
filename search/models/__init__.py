"""The catalogue, one noun a file."""

from search.models.action import Action
from search.models.album import Album, AlbumEntry, AlbumShare
from search.models.change import Change, Counter
from search.models.difference import Difference
from search.models.event import Event
from search.models.image import Image, path_digest
from search.models.metadata import ImageMetadata
from search.models.movie import Movie
from search.models.personal import Comment, Errand, Favourite, SavedSearch, Selection
from search.models.review import Reviewed
from search.models.session import SignedIn
from search.models.source import Source, SourceAccess
from search.models.space import Embedding, EmbeddingSpace
from search.models.tag import ImageTag, RefusedKeyword, Tag, tag_key
from search.models.upload import Upload

__all__ = [
    "Action",
    "Album",
    "AlbumEntry",
    "AlbumShare",
    "Change",
    "Comment",
    "Counter",
    "Difference",
    "Embedding",
    "EmbeddingSpace",
    "Errand",
    "Event",
    "Favourite",
    "Image",
    "ImageMetadata",
    "ImageTag",
    "Movie",
    "RefusedKeyword",
    "Reviewed",
    "SavedSearch",
    "Selection",
    "SignedIn",
    "Source",
    "SourceAccess",
    "Tag",
    "Upload",
    "path_digest",
    "tag_key",
]
