"""SIGKILL while thousands of images are tagged or undone in portions: what is half done says so, and goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.sandbox import ROOT, Sandbox
from tests.test_kill import shell

pytestmark = pytest.mark.slow

POINTS = ["errand-portion-before-commit", "errand-portion-done"]
IMAGES, PORTION = 70, 10

MAKE = """
from datetime import UTC, datetime
from django.contrib.auth import get_user_model
from django.utils import timezone
import numpy as np
from search.compact import pack_ordered
from search.models import Errand, Image, Source, SourceAccess, path_digest
owner = get_user_model().objects.create_user("owner")
source = Source.objects.create(name="photos", root=b"/nowhere")
SourceAccess.objects.create(source=source, user=owner, role="owner")
Image.objects.bulk_create([
    Image(source=source, path=b"%d.jpg" % i, path_digest=path_digest(b"%d.jpg" % i), directory=path_digest(b""),
          name=f"{i}.jpg", size=1, mtime_ns=1, state="ready", shown_at=datetime.now(UTC), rating=i % 3,
          rating_origin="person" if i % 3 else "")
    for i in range(IMAGES)])
ids = np.array(Image.objects.order_by("-pk").values_list("pk", flat=True))
GIVEN
errand = Errand.objects.create(
    user=owner, verb="VERB", arguments=given, ids=pack_ordered(ids), total=len(ids), beat_at=timezone.now())
print(errand.pk)
"""
VERBS = {
    "tag": """given = {"names": ["sea", "sun"]}""",
    "rate": """given = {"rating": 2}""",
}
TAKE_BACK = """
from django.contrib.auth import get_user_model
from search import errands
from search.models import Action
errands.AT_ONCE, errands.start = 5, lambda errand: None
print(errands.undo(Action.objects.get(pk=NUMBER), get_user_model().objects.get()).pk)
"""
LOOK = """
import json
from search.changes import last_number
from search.models import Action, Change, Errand, Image, ImageTag
from search.undoing import size_of
errand = Errand.objects.get(pk=NUMBER)
action = Action.objects.get(pk=errand.arguments.get("undoes") or errand.action_id) if errand.done else None
print(json.dumps({
    "done": errand.done, "state": errand.state, "action": action and action.pk,
    "tags": ImageTag.objects.count(), "rated": Image.objects.filter(rating=2).count(),
    "ratings": list(Image.objects.order_by("pk").values_list("rating", flat=True)),
    "changed": errand.action.count if errand.action else 0,
    "left": size_of(action) if action else None, "undone": bool(action and action.undone_at),
    "partly": action.details.get("partly", {}).get("left") if action else None,
    "actions": Action.objects.count(),
    "gapless": list(Change.objects.order_by("number").values_list("number", flat=True))
               == list(range(1, last_number() + 1)),
}))
"""


def run(home: Sandbox, errand: str, **env: str) -> int:
    """The exit status of a process that runs the errand."""
    command = [sys.executable, "-m", "tests.errand_runner", errand, str(PORTION)]
    return subprocess.run(command, env={**home.env, **env}, cwd=ROOT, capture_output=True, timeout=300).returncode


def look(home: Sandbox, errand: str) -> dict:  # type: ignore[type-arg]
    found: dict = json.loads(shell(home, LOOK.replace("NUMBER", errand)))  # type: ignore[type-arg]
    assert found["gapless"]
    return found


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_a_point_it_goes_on_where_it_was(sandbox, verb: str, point: str) -> None:
    home = sandbox(IMAGESEARCH_ENCODER="look")
    errand = shell(home, MAKE.replace("IMAGES", str(IMAGES)).replace("VERB", verb).replace("GIVEN", VERBS[verb]))
    first = [i % 3 for i in range(IMAGES)]
    commits = point == "errand-portion-done"
    for kill in (1, 2):
        assert run(home, errand, IMAGESEARCH_FAULT=f"{point}:2") == -signal.SIGKILL
        found = look(home, errand)
        portions = kill * (2 if commits else 1)
        assert found["done"] == portions * PORTION and found["state"] == "running", found
        if verb == "tag":
            assert found["tags"] == 2 * found["done"] == 2 * found["changed"]
    assert run(home, errand) == 0
    found = look(home, errand)
    assert (found["done"], found["state"], found["actions"]) == (IMAGES, "done", 1)
    assert found["tags"] == 2 * IMAGES if verb == "tag" else found["rated"] == IMAGES
    changed = found["changed"]

    back = shell(home, TAKE_BACK.replace("NUMBER", str(found["action"])))
    for kill in (1, 2):
        assert run(home, back, IMAGESEARCH_FAULT=f"{point}:2") == -signal.SIGKILL
        found = look(home, back)
        portions = kill * (2 if commits else 1)
        assert found["partly"] == found["left"] == changed - portions * PORTION and not found["undone"], found
        assert found["changed"] == portions * PORTION, "what is undone stands in one action"
    assert run(home, back) == 0
    found = look(home, back)
    assert found["undone"] and found["partly"] is None and found["changed"] == changed and found["actions"] == 2
    assert found["ratings"] == first and not found["tags"]
