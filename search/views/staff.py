"""Pages and verbs that are for those who run the installation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

_View = Callable[..., HttpResponse]


def staff_only(why: str) -> Callable[[_View], _View]:
    """Refuse everybody else with the sentence `why`."""

    def guard(view: _View) -> _View:
        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not request.user.is_staff:
                raise PermissionDenied(why)
            return view(request, *args, **kwargs)

        return guarded

    return guard
