"""The catalogue in Django's admin: everything can be looked at; what is changed goes through `search.curation`."""

from django.contrib.admin import site

from search.admin import accounts, albums, history, images, sources, spaces, tags

site.index_title = "How everything stands"
site.enable_nav_sidebar = False  # the lists need the room; the front page has all of it

__all__ = ["accounts", "albums", "history", "images", "sources", "spaces", "tags"]
