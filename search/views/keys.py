"""The help sheet of the keys, as a page and as the inside of a dialog."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe

from search import keys
from search.views.results import is_fragment


@require_safe
def keys_page(request: HttpRequest) -> HttpResponse:
    """Every key there is, place by place; for htmx the table alone."""
    template = "search/_keys.html" if is_fragment(request) else "search/keys.html"
    response = render(request, template, {"page": "keys", "sections": keys.sections()})
    patch_vary_headers(response, ["HX-Request"])
    return response
