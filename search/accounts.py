"""Accounts, as those who run the installation make them: persons, groups, the link to choose a password."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from search import audit, sessions
from search.errors import BadValue, NotAllowed


def may_manage(by: Any, person: Any) -> bool:
    """Whether `by` may change this account: staff those of everybody else, an owner (superuser) all."""
    if not by.is_active:
        return False
    return bool(by.is_superuser or (by.is_staff and not person.is_staff and not person.is_superuser))


def make_person(username: str, *, by: Any, runs: bool = False) -> Any:
    """A new account without a password: `invitation` gives the link that chooses one.

    `runs`: may do everything here, as the first owner does. Raises BadValue, NotAllowed.
    """
    _require_staff(by)
    if runs and not by.is_superuser:
        raise NotAllowed("Only an owner of this installation can make somebody another one.")
    name = " ".join(username.split())
    model = get_user_model()
    try:
        model._meta.get_field("username").run_validators(name)  # type: ignore[union-attr]
    except ValidationError as error:
        raise BadValue(" ".join(error.messages)) from None
    if not name:
        raise BadValue("Type the name with which the person will sign in.")
    try:
        with transaction.atomic():
            if model.objects.filter(username__iexact=name).exists():
                raise BadValue(f"There is an account of that name already: {name}")
            person = model(username=name, is_staff=runs, is_superuser=runs)
            person.set_unusable_password()
            person.save()
    except IntegrityError:
        raise BadValue(f"There is an account of that name already: {name}") from None
    audit.record(audit.Kind.ACCOUNT_CHANGED, by, text=f"Made the account {name}" + (" as an owner" if runs else ""))
    return person


def invitation(person: Any, *, by: Any) -> str:
    """The path of the page on which this person chooses a (new) password: good once, for three days."""
    _require_manager(by, person)
    if not person.is_active:
        raise NotAllowed(f"The account {person} is switched off: switch it on first.")
    audit.record(audit.Kind.ACCOUNT_CHANGED, by, text=f"Made a link to choose a password for {person}")
    code = urlsafe_base64_encode(force_bytes(person.pk))
    return reverse("invitation", args=[code, default_token_generator.make_token(person)])


def switch(person: Any, *, on: bool, by: Any) -> None:
    """Switch an account off (its sessions end, its work stays) or on again."""
    _require_manager(by, person)
    if person.pk == by.pk:
        raise NotAllowed("You cannot switch off your own account.")
    person.is_active = on
    person.save(update_fields=["is_active"])
    if not on:
        sessions.end(person)
    audit.record(audit.Kind.ACCOUNT_CHANGED, by, text=f"Switched the account {person} {'on' if on else 'off'}")


def end_sessions(person: Any, *, by: Any) -> int:
    """Sign this person out everywhere; returns in how many places."""
    _require_manager(by, person)
    count = sessions.end(person)
    audit.record(audit.Kind.SESSION_ENDED, by, count=count, text=f"Signed {person} out everywhere")
    return count


def make_group(name: str, *, by: Any) -> Group:
    """A new group of persons, to which access to folders can be given. Raises BadValue."""
    _require_staff(by)
    name = " ".join(name.split())
    if not name or len(name) > 150 or not name.isprintable():
        raise BadValue("A group's name has 1 to 150 characters.")
    if Group.objects.filter(name__iexact=name).exists():
        raise BadValue(f"There is a group of that name already: {name}")
    group = Group.objects.create(name=name)
    audit.record(audit.Kind.ACCOUNT_CHANGED, by, text=f"Made the group {name}")
    return group


def set_member(person: Any, group: Group, *, member: bool, by: Any) -> None:
    """Put somebody into a group, or take them out; the change of access is noted as every other."""
    _require_manager(by, person)
    with transaction.atomic():
        if member:
            person.groups.add(group)
        else:
            person.groups.remove(group)


def _require_staff(by: Any) -> None:
    if not (by.is_active and by.is_staff):
        raise NotAllowed("Only those who run this installation make accounts and groups.")


def _require_manager(by: Any, person: Any) -> None:
    if not may_manage(by, person):
        raise NotAllowed(f"Only an owner of this installation can change the account {person}.")
