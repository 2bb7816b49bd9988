"""Which sources a person may see or change, and who says so."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.signals import m2m_changed, post_delete, post_save

from search.asking import current_user
from search.errors import NotAllowed
from search.models import Change, Source, SourceAccess


def readable_sources(user: Any) -> QuerySet[Source]:
    """Sources whose images this user may see (any role, given to them or to one of their groups)."""
    return Source.objects.filter(_granted(user, list(SourceAccess.Role.values))).distinct()


def editable_sources(user: Any) -> QuerySet[Source]:
    """Sources whose images this user may curate (owner or editor)."""
    return Source.objects.filter(_granted(user, [SourceAccess.Role.OWNER, SourceAccess.Role.EDITOR])).distinct()


def _granted(user: Any, roles: list[str]) -> Q:
    return Q(
        pk__in=SourceAccess.objects.filter(
            Q(user=user.pk) | Q(group__in=user.groups.values("pk")), role__in=roles
        ).values("source")
    )


def owned_sources(user: Any) -> QuerySet[Source]:
    """Sources whose access this user may give and take: their own; staff: all."""
    if not user.is_active:
        return Source.objects.none()
    if user.is_staff:
        return Source.objects.all()
    return Source.objects.filter(_granted(user, [SourceAccess.Role.OWNER])).distinct()


def grant(source: Source, role: str, *, by: Any, user: Any = None, group: Group | None = None) -> SourceAccess:
    """Give a person, or a group, a role in a source; whoever has one already gets the new one instead.

    Raises NotAllowed where `by` is no owner, or the source would be left without one.
    """
    with transaction.atomic():
        _require_owner(source, by)
        given = SourceAccess.objects.select_for_update().filter(source=source, user=user, group=group).first()
        if given is None:
            return SourceAccess.objects.create(source=source, user=user, group=group, role=SourceAccess.Role(role))
        if given.role != role:
            if given.role == SourceAccess.Role.OWNER:
                _require_another_owner(given)
            given.role = SourceAccess.Role(role)
            given.save(update_fields=["role"])
        return given


def revoke(access: SourceAccess, *, by: Any) -> None:
    """Take a role away. Raises NotAllowed as `grant` does."""
    with transaction.atomic():
        _require_owner(access.source, by)
        if access.role == SourceAccess.Role.OWNER:
            _require_another_owner(access)
        access.delete()


def _require_owner(source: Source, by: Any) -> None:
    # Two owners who remove each other come one after the other.
    Source.objects.select_for_update(no_key=True).get(pk=source.pk)
    if by is not None and not owned_sources(by).filter(pk=source.pk).exists():
        raise NotAllowed(f"Only an owner of “{source}” can say who may see it.")


def _require_another_owner(access: SourceAccess) -> None:
    others = SourceAccess.objects.select_for_update().filter(source=access.source_id, role=SourceAccess.Role.OWNER)
    if access.pk not in [one.pk for one in others] or len(others) > 1:
        return
    raise NotAllowed(f"“{access.source}” needs an owner: make somebody else one first.")


def note_changes_of_access() -> None:
    """Let every grant, its end, and every joining or leaving of a group take a number from the change log."""
    for signal in (post_save, post_delete):
        signal.connect(_access_changed, sender=SourceAccess, dispatch_uid="search.access")
    m2m_changed.connect(_access_changed, sender=get_user_model().groups.through, dispatch_uid="search.access.groups")


def _access_changed(**kwargs: Any) -> None:
    from search import audit, changes

    if not str(kwargs.get("action", "post")).startswith("post"):
        return
    with transaction.atomic():
        changes.record(Change.Kind.ACCESS)
        audit.record(audit.Kind.ACCESS_CHANGED, current_user(), text=_said(**kwargs))


def _said(*, instance: Any, **kwargs: Any) -> str:
    """What changed, in a few words."""
    if isinstance(instance, SourceAccess):
        try:
            whom = instance.user if instance.user_id else f"group {instance.group}"
        except ObjectDoesNotExist:  # the roles of an account go with it
            whom = "an account or a group that ended"
        taken = "no longer " if kwargs["signal"] is post_delete else ""
        return f"{whom}: {taken}{instance.get_role_display().lower()} of {instance.source}"
    if kwargs["action"] == "post_clear":
        return f"{instance} has no {'members' if kwargs['reverse'] else 'groups'} any more"
    verb = "joined" if kwargs["action"] == "post_add" else "left"
    others = kwargs["model"].objects.filter(pk__in=kwargs["pk_set"] or []).order_by("pk")[:20]
    names = ", ".join(str(one) for one in others)
    return f"{names} {verb} {instance}" if kwargs["reverse"] else f"{instance} {verb} {names}"
