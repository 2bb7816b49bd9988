"""What is done to a selection, and undone: at once for a few thousand images, in portions with progress for more.

Each portion is one transaction with its place in the `Errand` and its part of the errand's one Action: whoever
stops the program finds the errand where it was, can let it go on, or undoes what was done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
from django.db import close_old_connections, connection, transaction
from django.utils import timezone

from search import albums, copies, curation, history, panels, personal, stacks, undoing
from search.arrays import Ids
from search.atomically import atomically
from search.compact import pack_ordered, unpack_ordered
from search.errors import BadValue, NotAllowed, SearchError
from search.faultpoints import reach
from search.models import Action, Album, Errand
from search.selection import Selected

log = logging.getLogger(__name__)

AT_ONCE = 20_000
"""More images than that are done in portions, with progress."""
PORTION = 10_000
PORTIONS = {"copies": 2_000}
"""Of verbs that look at more than the images they are given."""
SILENT = timedelta(seconds=60)
"""An errand that says nothing for so long was cut off: it can go on."""

UNDO = "undo"
"""The verb of an errand that takes an Action back; its arguments name it."""

Arguments = dict[str, Any]
Verb = Callable[[Ids, Arguments, Any], Action | None]


def _to_album(ids: Ids, arguments: Arguments, user: Any) -> Action | None:
    album = Album.objects.visible_to(user).filter(pk=arguments["album"]).first()
    if album is None:
        raise BadValue("That album is not there any more. Choose another one.")
    scores = arguments.get("scores")
    return albums.add(album, ids, user, scores=None if scores is None else np.asarray(scores, dtype=np.float64))


def _out_of_album(ids: Ids, arguments: Arguments, user: Any) -> Action | None:
    album = Album.objects.visible_to(user).filter(pk=arguments["album"]).first()
    if album is None:
        raise BadValue("That album is not there any more.")
    return albums.take_out(album, ids, user)


VERBS: dict[str, Verb] = {
    "tag": lambda ids, given, user: curation.tag(stacks.whole(ids), given["names"], user),
    "untag": lambda ids, given, user: curation.untag(stacks.whole(ids), given["names"], user),
    "rate": lambda ids, given, user: curation.rate(stacks.whole(ids), given["rating"], user),
    "title": lambda ids, given, user: curation.set_title(stacks.whole(ids), given["title"], user),
    "hide": lambda ids, given, user: curation.hide(stacks.whole(ids), user),
    "unhide": lambda ids, given, user: curation.unhide(stacks.whole(ids), user),
    "remove": lambda ids, given, user: curation.remove(stacks.whole(ids), user),
    "restore": lambda ids, given, user: curation.restore(stacks.whole(ids), user),
    "stack": lambda ids, given, user: stacks.stack(ids, user),
    "unstack": lambda ids, given, user: stacks.unstack(ids, user),
    "flag": lambda ids, given, user: curation.flag(stacks.whole(ids), user),
    "unflag": lambda ids, given, user: curation.unflag(stacks.whole(ids), user),
    "keep": lambda ids, given, user: curation.keep(ids, given["queue"], user),
    "again": lambda ids, given, user: curation.review_again(ids, user),
    "favourite": lambda ids, given, user: personal.favourite(ids, user),
    "unfavourite": lambda ids, given, user: personal.unfavourite(ids, user),
    "comment": lambda ids, given, user: personal.comment(ids, given["text"], user),
    "album": _to_album,
    "out": _out_of_album,
    "copies": lambda ids, given, user: copies.hide_others(ids, user, prefer=given.get("prefer")),
}
"""What can be done to many images, by the name that forms and errands use."""
CHORE = "chore:"
"""Prefix of the names of errands that do what another app registered with `panels.register_chore`."""


def _verb(name: str) -> Verb:
    if not name.startswith(CHORE):
        return VERBS[name]
    run = _chore(name).run

    def verb(ids: Ids, arguments: Arguments, user: Any) -> None:
        run(ids, user)

    return verb


def _chore(name: str) -> panels.Chore:
    for one in panels.chores():
        if one.name == name.removeprefix(CHORE):
            return one
    raise BadValue("Nobody knows how to do this any more.")


def do(
    verb: str, selected: Selected, arguments: Arguments, user: Any, *, at_once: int | None = None
) -> Action | Errand | None:
    """Do something to what is selected: the Action, None when nothing changed, or the Errand that has begun.

    More than `at_once` images (AT_ONCE) become an errand.

    Raises what the verb raises; an errand keeps that as its message.
    """
    ids = selected.ids
    if verb == "album" and not np.isnan(selected.scores).all():
        scores = [None if np.isnan(score) else round(float(score), 6) for score in selected.scores]
        arguments = {**arguments, "scores": scores}
    if len(ids) <= (AT_ONCE if at_once is None else at_once):
        return VERBS[verb](ids, _portion_of(arguments, 0, len(ids)), user)
    errand = Errand.objects.create(
        user=user, verb=verb, arguments=arguments, ids=pack_ordered(ids), total=len(ids), beat_at=timezone.now()
    )
    start(errand)
    return errand


def do_chore(name: str, ids: Ids, user: Any) -> str | Errand:
    """Ask for a registered chore, "chore:" and its name, for these images: what it says, or the Errand that has begun.

    Raises what the chore raises.
    """
    if len(ids) <= AT_ONCE:
        return _chore(name).run(ids, user)
    errand = Errand.objects.create(
        user=user, verb=name, arguments={}, ids=pack_ordered(ids), total=len(ids), beat_at=timezone.now()
    )
    start(errand)
    return errand


def undo(action: Action, user: Any) -> Action | Errand | None:
    """Take an Action back: what `curation.undo` gives, or the Errand that has begun, or goes on where it was stopped.

    Raises NotAllowed when none of it is theirs to take back.
    """
    mine = Errand.objects.filter(user=user.pk, verb=UNDO, arguments__undoes=action.pk)
    unfinished = mine.exclude(state=Errand.State.DONE).order_by("-pk").first()
    if unfinished is not None and history.PARTLY in action.details:
        go_on(unfinished)
        return unfinished
    size = undoing.size_of(action)
    if action.undone_at is not None or size <= AT_ONCE:
        return curation.undo(action, user)
    if unfinished is not None and unfinished.state == Errand.State.RUNNING and not is_cut_off(unfinished):
        return unfinished
    errand = Errand.objects.create(
        user=user, verb=UNDO, arguments={"undoes": action.pk}, ids=b"", total=size, beat_at=timezone.now()
    )
    start(errand)
    return errand


def start(errand: Errand) -> threading.Thread:
    """Let an errand run, or go on, in a thread of this process."""
    thread = threading.Thread(target=_run, args=(errand.pk,), name=f"errand-{errand.pk}", daemon=True)
    thread.start()
    return thread


def go_on(errand: Errand) -> bool:
    """Take up an errand that was stopped or cut off; False when it is running or finished."""
    now = timezone.now()
    idle = Errand.objects.filter(pk=errand.pk).exclude(state=Errand.State.DONE)
    idle = idle.exclude(state=Errand.State.RUNNING, beat_at__gt=now - SILENT)
    if not idle.update(state=Errand.State.RUNNING, beat_at=now, message=""):
        return False
    start(errand)
    return True


def stop(errand: Errand) -> None:
    """Stop after the portion in hand; what was done can be undone."""
    Errand.objects.filter(pk=errand.pk, state=Errand.State.RUNNING).update(state=Errand.State.STOPPED)


def is_cut_off(errand: Errand) -> bool:
    """Whether nobody runs it although it is not finished."""
    return errand.state == Errand.State.RUNNING and errand.beat_at < timezone.now() - SILENT


def newest(user: Any) -> Errand | None:
    """This person's errand that is not finished, or was within the last minute."""
    mine = Errand.objects.filter(user=user.pk).order_by("-pk")
    last = mine.values_list("pk", "state", "beat_at").first()  # every page asks, and next to none has one to show
    if last is None or (last[1] != Errand.State.RUNNING and last[2] < timezone.now() - SILENT):
        return None
    return mine.defer("ids", "arguments").select_related("action").filter(pk=last[0]).first()


def run_portions(errand_id: int) -> None:
    """Run an errand to its end in this thread, portion by portion."""
    more = True
    while more:
        more = _portion(errand_id)
        reach("errand-portion-done")


def _run(errand_id: int) -> None:
    close_old_connections()
    try:
        run_portions(errand_id)
    except SearchError as error:
        Errand.objects.filter(pk=errand_id).update(state=Errand.State.FAILED, message=str(error)[:500])
    except Exception:
        log.exception("Errand %d was cut off", errand_id)
        said = "This was cut off by a fault of the program; its log says which. What was done can be undone."
        Errand.objects.filter(pk=errand_id).update(state=Errand.State.FAILED, message=said)
    finally:
        connection.close()


@atomically
def _portion(errand_id: int) -> bool:
    """Do the next portion; whether there is more to do."""
    errand = Errand.objects.select_for_update(of=("self",)).select_related("action", "user").get(pk=errand_id)
    if errand.state != Errand.State.RUNNING:
        return False
    if errand.verb == UNDO:
        _undo_portion(errand)
    else:
        _verb_portion(errand)
    errand.beat_at = timezone.now()
    if errand.done >= errand.total and errand.state == Errand.State.RUNNING:
        errand.state = Errand.State.DONE
    errand.save(update_fields=["done", "beat_at", "state", "action", "message"])
    reach("errand-portion-before-commit")
    return errand.state == Errand.State.RUNNING


def _verb_portion(errand: Errand) -> None:
    ids = unpack_ordered(errand.ids)[errand.done : errand.done + PORTIONS.get(errand.verb, PORTION)]
    if len(ids):
        arguments = _portion_of(errand.arguments, errand.done, len(ids))
        if errand.action is not None:  # before the images, as whoever takes it back does
            Action.objects.select_for_update().filter(pk=errand.action.pk).first()
        try:
            with transaction.atomic():
                made = _verb(errand.verb)(ids, arguments, errand.user)
        except NotAllowed:
            made = None  # nothing of this portion is theirs to change; maybe of the next
            errand.message = "Some of the pictures are not yours to change and were left out."
        if made is not None:
            errand.action = history.joined(errand.action, made)
    errand.done += len(ids)


def _undo_portion(errand: Errand) -> None:
    action = Action.objects.only("pk").get(pk=errand.arguments["undoes"])
    anew = errand.action is None and not errand.done
    portion = undoing.undo_portion(action, errand.user, most=PORTION, begun=errand.action, anew=anew)
    errand.action = portion.made
    errand.done = max(0, errand.total - portion.left)
    if portion.message and portion.made is None:
        errand.state, errand.message = Errand.State.FAILED, portion.message


def _portion_of(arguments: Arguments, start: int, length: int) -> Arguments:
    if "scores" not in arguments:
        return arguments
    scores = [np.nan if score is None else score for score in arguments["scores"][start : start + length]]
    return {**arguments, "scores": scores}
