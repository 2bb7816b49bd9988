"""Signing in and out, one's own account and sessions, and the links through which a password is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.views import (
    LoginView,
    LogoutView,
    PasswordChangeView,
    PasswordResetConfirmView,
    redirect_to_login,
)
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse, reverse_lazy
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from search import audit, sessions, signin_limit, welcome
from search.asking import lock_address
from search.errors import NotAllowed
from search.forms import ChangePasswordForm, ChoosePasswordForm, SignInForm, WelcomeForm
from search.views.results import is_fragment
from search.wording import counted

READING = ("GET", "HEAD")


class SignInRequired(LoginRequiredMiddleware):
    """Sends whoever is not signed in to the sign-in page, and from there to the page where they stood.

    A session can end while a page is open: then htmx asks for a part of it, or a form is sent. The way back
    leads to the page itself, never to the part or to the address of the form.
    """

    def handle_no_permission(self, request: HttpRequest, view_func: Callable[..., Any]) -> HttpResponseBase:  # type: ignore[override]
        fragment = is_fragment(request)
        if request.method in READING and not fragment:
            return super().handle_no_permission(request, view_func)
        if request.method not in READING:
            messages.info(request, "You were signed out, and nothing was changed. Sign in and do it once more.")
        response = redirect_to_login(
            _page_of(request), self.get_login_url(view_func), self.get_redirect_field_name(view_func)
        )
        return HttpResponse(headers={"HX-Redirect": response.url}) if fragment else response


def _page_of(request: HttpRequest) -> str:
    """The page of this site from which a form or htmx asks."""
    page = request.headers.get("HX-Current-URL") or request.headers.get("Referer", "")
    if not url_has_allowed_host_and_scheme(page, {request.get_host()}, require_https=request.is_secure()):
        return reverse("search")
    return urlsplit(page)._replace(scheme="", netloc="", fragment="").geturl() or reverse("search")


@method_decorator(login_not_required, name="dispatch")
class SignIn(LoginView):
    template_name = "search/signin.html"
    form_class = SignInForm
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs):  # type: ignore[no-untyped-def]
        return {**super().get_context_data(**kwargs), "nobody_yet": welcome.is_needed()}


class SignOut(LogoutView):
    http_method_names = ["post", "options"]


@login_not_required
@never_cache
@require_http_methods(["GET", "POST"])
def welcome_page(request: HttpRequest, token: str) -> HttpResponse:
    """The page behind the one-time link: choose a name and a password, and be the owner."""
    if not welcome.is_good(token):
        return render(request, "search/welcome.html", {"spent": welcome.SPENT}, status=410)
    form = WelcomeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            owner = welcome.redeem(
                token, username=form.cleaned_data["username"], password=form.cleaned_data["password"]
            )
        except NotAllowed as error:
            return render(request, "search/welcome.html", {"spent": str(error)}, status=410)
        login(request, owner, backend="django.contrib.auth.backends.ModelBackend")
        return redirect("search")
    return render(request, "search/welcome.html", {"form": form})


# --- who tried too often ----------------------------------------------------------------------------


def locked_out(request: HttpRequest, response: HttpResponse | None, credentials: dict[str, Any] | None) -> HttpResponse:
    """What somebody sees who has to wait after too many wrong passwords (called by django-axes)."""
    name = str((credentials or {}).get("username") or "")
    seconds = signin_limit.waiting_seconds(name, lock_address(request)) or 1
    answer = render(request, "search/locked.html", {"seconds": seconds}, status=429)
    answer["Retry-After"] = str(seconds)
    answer["Cache-Control"] = "no-store"
    return answer


# --- one's own account ------------------------------------------------------------------------------


@never_cache
@require_safe
def account(request: HttpRequest) -> HttpResponse:
    """Who one is here, and where one is signed in."""
    places = sessions.places(request.user, request.session.session_key)
    context = {"page": "account", "places": places, "others": sum(not place.current for place in places)}
    return render(request, "search/account.html", context)


@require_POST
def end_session(request: HttpRequest, session_id: int) -> HttpResponse:
    """End one of one's own sessions."""
    if sessions.end(request.user, pk=session_id):
        audit.record(audit.Kind.SESSION_ENDED, request.user, count=1, text="Ended one session")
        messages.success(request, "That session is ended.")
    else:
        messages.info(request, "That session was over already.")
    still = sessions.is_open(request.session.session_key)
    return redirect("account") if still else redirect("signin")


@require_POST
def end_other_sessions(request: HttpRequest) -> HttpResponse:
    """End all of one's own sessions but this one."""
    count = sessions.end(request.user, besides=request.session.session_key)
    if count:
        audit.record(audit.Kind.SESSION_ENDED, request.user, count=count, text="Ended all other sessions")
    messages.success(request, f"Ended {counted(count, 'session')}; this one goes on.")
    return redirect("account")


class ChangePassword(PasswordChangeView):
    template_name = "search/password.html"
    form_class = ChangePasswordForm
    success_url = reverse_lazy("account")

    def form_valid(self, form: Any) -> HttpResponse:
        answer = super().form_valid(form)
        sessions.end(self.request.user, besides=self.request.session.session_key)
        sessions.note(self.request, self.request.user)
        audit.record(audit.Kind.ACCOUNT_CHANGED, self.request.user, text="Changed the password")
        messages.success(self.request, "Your password is changed. Wherever else you were signed in, you no longer are.")
        return answer


@method_decorator(login_not_required, name="dispatch")
@method_decorator(never_cache, name="dispatch")
class Invitation(PasswordResetConfirmView):
    """The page behind the link that those who run the installation hand out: choose a password, and be signed in."""

    template_name = "search/invitation.html"
    form_class = ChoosePasswordForm
    success_url = reverse_lazy("search")
    post_reset_login = True
    post_reset_login_backend = "django.contrib.auth.backends.ModelBackend"

    def get_user(self, uidb64: str) -> Any:
        person = super().get_user(uidb64)
        return person if person is not None and person.is_active else None

    def form_valid(self, form: Any) -> HttpResponse:
        answer = super().form_valid(form)
        person = form.user
        sessions.end(person, besides=self.request.session.session_key)
        signin_limit.unlock(username=person.get_username())
        audit.record(audit.Kind.ACCOUNT_CHANGED, person, text="Chose a password")
        return answer

    def render_to_response(self, context: dict[str, Any], **kwargs: Any) -> Any:
        return super().render_to_response(context, **kwargs | {"status": 200 if self.validlink else 410})
