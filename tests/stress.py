"""Many processes at once on one library, each with a journal of what it was told: `python -m tests.stress CONFIG`.

Workers, a crawl that finds changed files, curators through `search.curation`, visitors through the pages, one who
undoes and redoes, and a reader of the change log. Every process has tags, an album, favourites, comments and a share
of the images for itself, so that what must stand in the end follows from its journal alone; the images themselves,
their locks, the ledger and the change log are everybody's. Prints a report as one line of JSON; `problems` is empty
when every acknowledged decision stands and nothing failed.
"""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django

State = dict[str, Any]
"""What one process expects of its own: tags, rating, title, hidden, removed by image, favourites, comments, album."""

TAGS = "abc"
WORDS = ["First light", "Harbour", "Grandmother", ""]


def empty() -> State:
    return {
        "tags": {}, "rating": {}, "title": {},
        "hidden": [], "removed": [], "favourites": [], "comments": [], "album": [],
    }  # fmt: skip


class Person:
    """One process that changes things; `number` makes its tags, its album and its share of the images its own."""

    def __init__(self, number: int, config: dict[str, Any]) -> None:
        from django.contrib.auth import get_user_model

        from search.models import Album, Image

        self.number, self.config = number, config
        self.user = get_user_model().objects.get(username=f"person{number}")
        self.album = Album.objects.get(name=f"album{number}")
        self.all = list(Image.objects.filter(source__name="kept").order_by("pk").values_list("pk", flat=True))
        self.mine = [pk for n, pk in enumerate(self.all) if n % config["people"] == number]
        self.chance = random.Random(config["seed"] * 1000 + number)
        self.journal = open(Path(config["journals"]) / f"{number}.jsonl", "w", buffering=1)  # noqa: SIM115

    def tag(self, letter: str) -> str:
        return f"p{self.number}-{letter}"

    def run(self) -> None:
        for _ in range(self.config["operations"]):
            name, values = self.choose()
            self.write({"intent": [name, values]})
            try:
                self.do(name, values)
            except Exception:
                self.write({"error": traceback.format_exc()[-3000:]})
            else:
                self.write({"acknowledged": [name, values]})

    def write(self, line: dict[str, Any]) -> None:
        self.journal.write(json.dumps(line) + "\n")

    def choose(self) -> tuple[str, dict[str, Any]]:
        chance = self.chance
        names = ["tag", "untag", "rate", "title", "hide", "unhide", "remove", "restore", "favourite", "unfavourite"]
        names += ["comment", "add", "out", "tag", "read", "rename", "merge", "delete"]
        name = chance.choice(names)
        some = sorted(chance.sample(self.all, chance.randint(1, len(self.all))))
        mine = sorted(chance.sample(self.mine, chance.randint(1, len(self.mine))))
        values: dict[str, Any] = {"ids": some if name in EVERYBODYS else mine}
        if name in {"tag", "untag", "delete"}:
            values["tag"] = self.tag(chance.choice(TAGS))
        elif name in {"rename", "merge"}:
            values["tag"], values["into"] = (self.tag(letter) for letter in chance.sample(TAGS, 2))
        elif name == "rate":
            values["rating"] = chance.randint(0, 5)
        elif name in {"title", "comment"}:
            values["text"] = chance.choice(WORDS if name == "title" else WORDS[:3])
        return name, values

    def do(self, name: str, values: dict[str, Any]) -> Any:
        from ingestion import chores
        from search import albums, curation, personal, tagging
        from search.models import Tag

        ids, user = values["ids"], self.user
        if name in {"rename", "merge", "delete"}:
            tag = Tag.objects.filter(key=values["tag"]).first()
            if tag is None:
                return None
            if name == "delete":
                return tagging.delete(tag, user)
            if name == "rename":
                return tagging.rename(tag, values["into"], user)
            return tagging.merge([tag], values["into"], user)
        verbs: dict[str, Callable[[], Any]] = {
            "tag": lambda: curation.tag(ids, values["tag"], user),
            "untag": lambda: curation.untag(ids, values["tag"], user),
            "rate": lambda: curation.rate(ids, values["rating"], user),
            "title": lambda: curation.set_title(ids, values["text"], user),
            "comment": lambda: personal.comment(ids, values["text"], user),
            "add": lambda: albums.add(self.album, ids, user),
            "out": lambda: albums.take_out(self.album, ids, user),
            "read": lambda: chores.read_again(ids, user),
            "favourite": lambda: personal.favourite(ids, user),
            "unfavourite": lambda: personal.unfavourite(ids, user),
        }  # fmt: skip
        return verbs[name]() if name in verbs else getattr(curation, name)(ids, user)


EVERYBODYS = {"tag", "untag", "favourite", "unfavourite", "comment", "add", "out", "read"}
"""What is done to images of everybody's, since what it leaves is one's own."""


def expected(state: State, name: str, values: dict[str, Any]) -> None:
    """What an acknowledged verb makes of its person's own state."""
    ids = values["ids"]
    tags = state["tags"]
    if name == "tag":
        tags[values["tag"]] = sorted({*tags.get(values["tag"], []), *ids})
    elif name == "untag":
        tags[values["tag"]] = sorted(set(tags.get(values["tag"], [])) - set(ids))
    elif name == "delete":
        tags[values["tag"]] = []
    elif name in {"rename", "merge"}:
        tags[values["into"]] = sorted({*tags.get(values["into"], []), *tags.get(values["tag"], [])})
        tags[values["tag"]] = []
    elif name in {"rate", "title"}:
        for pk in ids:
            state["rating" if name == "rate" else "title"][str(pk)] = values["rating" if name == "rate" else "text"]
    elif name == "comment":
        state["comments"] = sorted([*state["comments"], *([pk, values["text"]] for pk in ids)])
    elif name in SETS:
        kept, put = SETS[name]
        state[kept] = sorted({*state[kept], *ids} if put else set(state[kept]) - set(ids))


SETS = {
    "hide": ("hidden", True), "unhide": ("hidden", False), "remove": ("removed", True), "restore": ("removed", False),
    "favourite": ("favourites", True), "unfavourite": ("favourites", False),
    "add": ("album", True), "out": ("album", False),
}  # fmt: skip


class Visitor(Person):
    """The same through the pages, in two threads as a server has them (one after the other for each thing)."""

    def __init__(self, number: int, config: dict[str, Any]) -> None:
        super().__init__(number, config)
        from django.test import Client
        from django.test.utils import setup_test_environment

        setup_test_environment()  # answers say which messages they show
        self.client = Client(raise_request_exception=True)
        self.client.force_login(self.user)

    def choose(self) -> tuple[str, dict[str, Any]]:
        while True:
            name, values = super().choose()
            if name not in {"rename", "merge", "delete"}:
                return name, values

    def run(self) -> None:
        looking = threading.Thread(target=self._look, daemon=True)
        self._through = False
        looking.start()
        super().run()
        self._through = True
        looking.join(30)

    def _look(self) -> None:
        """Somebody else of the household, who looks at pages meanwhile."""
        from django.db import connection
        from django.test import Client

        client = Client(raise_request_exception=True)
        client.force_login(self.user)
        try:
            while not self._through:
                image = f"/image/{self.all[0]}/"
                for page in ("/browse/", "/history/", "/selection/", "/progress/", image):
                    answer = client.get(page)
                    if answer.status_code not in {200, 404}:  # an image that was removed is not there
                        self.write({"error": f"{page}: {answer.status_code}"})
        except Exception:
            self.write({"error": traceback.format_exc()[-3000:]})
        finally:
            connection.close()

    def do(self, name: str, values: dict[str, Any]) -> Any:
        if name == "read":
            name = "read_again"
        fields = {
            "verb": {"add": "album"}.get(name, name), "next": "/selection/",
            "ids": values["ids"], "album": self.album.pk, "tag": values.get("tag", ""),
            "rating": values.get("rating", ""), "title": values.get("text", ""), "text": values.get("text", ""),
        }  # fmt: skip
        self._post("/selection/all/", {"none": "1", "next": "/selection/"})
        self._post("/selection/do/", fields)
        return None

    def _post(self, address: str, fields: dict[str, Any]) -> None:
        answer = self.client.post(address, fields, follow=True)
        said = [message for message in answer.context["messages"] if message.level_tag == "error"]
        if answer.status_code != 200 or said:
            raise AssertionError(f"{address}: {answer.status_code} {[str(message) for message in said]}")


class Doubter(Person):
    """Takes back what was done last, or does it again: everything of it must be as it was before, or after."""

    def run(self) -> None:
        now, states = empty(), []
        for _ in range(self.config["operations"]):
            name, values = self.choose()
            self.write({"intent": ["doubt", {"ids": []}]})
            try:
                before = copy.deepcopy(now)
                action = self.do(name, values)
                expected(now, name, values)
                if name != "read" and action is not None and self.chance.random() < 0.7:
                    from search import curation

                    undone = curation.undo(action, self.user)
                    assert undone is not None, action.summary
                    after, now = now, before
                    if self.chance.random() < 0.4:
                        assert curation.undo(undone, self.user) is not None, undone.summary
                        now = after
            except Exception:
                self.write({"error": traceback.format_exc()[-3000:]})
            states.append(now)
            self.write({"state": now})


def follow(config: dict[str, Any], stop: Callable[[], bool]) -> None:
    """Read the change log as it grows: every number, one after the other, and none appears below one already seen."""
    from search.models import Change

    with open(Path(config["journals"]) / "follower.jsonl", "w", buffering=1) as journal:
        seen = 0
        while True:
            last = stop()
            for number in Change.objects.filter(number__gt=seen).order_by("number").values_list("number", flat=True):
                if number != seen + 1:
                    journal.write(json.dumps({"error": f"the change log went from {seen} to {number}"}) + "\n")
                seen = number
            if last:
                journal.write(json.dumps({"seen": seen}) + "\n")
                return
            time.sleep(0.01)


def crawl_again(config: dict[str, Any]) -> None:
    """A folder that grows, changes and moves, crawled after each change; the kept one is crawled with it."""
    from ingestion.register import crawl
    from search.models import Source
    from tests import patterns

    root = Path(config["growing"])
    for turn in range(config["crawls"]):
        first = 10 + turn * config["new"]
        patterns.folder_of(root, config["new"], first=first)
        patterns.write(root / "photo0000.jpg", 5000 + turn, mtime=1_800_000_000 + turn)
        (root / f"photo{first:04}.jpg").rename(root / f"moved{turn}.jpg")
        if turn:
            (root / f"photo{first - 1:04}.jpg").unlink()
        for source in Source.objects.order_by("name"):
            crawl(source)


def work(config: dict[str, Any]) -> None:
    from ingestion.worker import Worker

    worker = Worker(forever=True, threads=1)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


def forked(name: str, config: dict[str, Any], run: Callable[[], Any]) -> int:
    """Run in a process of its own, with connections of its own; what it raises stands in its journal."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        run()
        status = 0
    except BaseException:
        (Path(config["journals"]) / f"{name}.failed").write_text(traceback.format_exc())
    finally:
        sys.stdout.flush()
        os._exit(status)


def prepare(config: dict[str, Any]) -> None:
    """The people and what is theirs; the kept source was indexed before."""
    from django.contrib.auth import get_user_model

    from ingestion.roots import source_for
    from search import albums
    from search.models import Source, SourceAccess

    Source.objects.update(name="kept")
    source_for(Path(config["growing"]), name="growing")
    for number in range(config["people"]):
        user = get_user_model().objects.create_user(f"person{number}")
        for source in Source.objects.all():
            SourceAccess.objects.create(source=source, user=user, role=SourceAccess.Role.EDITOR)
        albums.create(f"album{number}", user)


def found(person: Person) -> State:
    """What the database says of one person's own."""
    from search.models import AlbumEntry, Comment, Favourite, Image, ImageTag

    state = empty()
    for letter in TAGS:
        links = ImageTag.objects.filter(tag__key=person.tag(letter)).order_by("image")
        state["tags"][person.tag(letter)] = list(links.values_list("image", flat=True))
    for pk, rating, title, hidden, removed in (
        Image.objects.filter(pk__in=person.mine).order_by("pk").values_list("pk", "rating", "title", "hidden", "state")
    ):
        state["rating"][str(pk)], state["title"][str(pk)] = rating, title
        state["hidden"] += [pk] if hidden else []
        state["removed"] += [pk] if removed == "removed" else []
    state["favourites"] = list(
        Favourite.objects.filter(user=person.user).order_by("image").values_list("image", flat=True)
    )
    state["comments"] = sorted(map(list, Comment.objects.filter(author=person.user).values_list("image", "text")))
    state["album"] = sorted(AlbumEntry.objects.filter(album=person.album).values_list("image", flat=True))
    return state


def filled_up(state: State, person: Person) -> State:
    """With what nobody changed."""
    state = copy.deepcopy(state)
    for letter in TAGS:
        state["tags"].setdefault(person.tag(letter), [])
    for pk in person.mine:
        state["rating"].setdefault(str(pk), 0)
        state["title"].setdefault(str(pk), "")
    return state


def check(config: dict[str, Any]) -> dict[str, Any]:
    """Compare the journals with the database, and the ledger and the change log with themselves."""
    from ingestion import ledger
    from ingestion.models import Work
    from search.changes import last_number
    from search.models import Change, Embedding, EmbeddingSpace, Image

    problems, acknowledged = [], 0
    for failed in Path(config["journals"]).glob("*.failed"):
        problems.append(f"{failed.stem} ended: {failed.read_text()}")
    for number in range(config["people"]):
        person = Person.__new__(Person)
        person.number, person.config = number, config
        _belongings(person)
        state = empty()
        for line in (Path(config["journals"]) / f"{number}.jsonl").read_text().splitlines():
            said = json.loads(line)
            if "error" in said:
                problems.append(f"person {number}: {said['error']}")
            if "acknowledged" in said:
                acknowledged += 1
                expected(state, *said["acknowledged"])
            if "state" in said:
                acknowledged += 1
                state = said["state"]
        now, wanted = found(person), filled_up(state, person)
        problems += [
            f"person {number}, {part}: expected {wanted[part]}, found {now[part]}"
            for part in wanted
            if wanted[part] != now[part]
        ]
    for line in (Path(config["journals"]) / "follower.jsonl").read_text().splitlines():
        if error := json.loads(line).get("error"):
            problems.append(error)
    numbers = list(Change.objects.order_by("number").values_list("number", flat=True))
    if numbers != list(range(1, last_number() + 1)):
        problems.append(f"the change log has gaps: {len(numbers)} of {last_number()}")
    said, real = ({k: v for k, v in counts.items() if any(v)} for counts in (ledger.counts(), ledger.count_anew()))
    if said != real:
        problems.append(f"the ledger says {said}, there is {real}")
    if wrong := ledger.recount():
        problems.append(f"recount found {wrong} wrong")
    if left := list(Work.objects.values_list("image", "stage", "state", "reason")[:5]):
        problems.append(f"work is left: {left}")
    ready = Image.objects.filter(state=Image.State.READY)
    for space in EmbeddingSpace.objects.all():
        if lacking := ready.exclude(pk__in=Embedding.objects.filter(space=space).values("image")).count():
            problems.append(f"{lacking} images have no vector in {space.name}")
    if other := Image.objects.exclude(state__in=["ready", "removed", "missing"]).count():
        problems.append(f"{other} images are neither ready, removed nor missing")
    return {"problems": problems, "acknowledged": acknowledged, "changes": len(numbers), "ready": ready.count()}


def _belongings(person: Person) -> None:
    from django.contrib.auth import get_user_model

    from search.models import Album, Image

    person.user = get_user_model().objects.get(username=f"person{person.number}")
    person.album = Album.objects.get(name=f"album{person.number}")
    person.all = list(Image.objects.filter(source__name="kept").order_by("pk").values_list("pk", flat=True))
    person.mine = [pk for n, pk in enumerate(person.all) if n % person.config["people"] == person.number]


def main(config: dict[str, Any]) -> dict[str, Any]:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
    django.setup()
    from django.conf import settings
    from django.db import connections

    settings.ALLOWED_HOSTS = ["testserver"]
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}
    prepare(config)
    connections.close_all()
    kinds = [Person] * (config["people"] - 2) + [Visitor, Doubter]
    people = [
        forked(f"person{n}", config, lambda kind=kind, n=n: kind(n, config).run()) for n, kind in enumerate(kinds)
    ]
    crawler = forked("crawler", config, lambda: crawl_again(config))
    workers = [forked(f"worker{n}", config, lambda: work(config)) for n in range(config["workers"])]
    through = Path(config["journals"]) / "through"
    follower = forked("follower", config, lambda: follow(config, through.exists))
    for pid in [*people, crawler]:
        os.waitpid(pid, 0)
    from ingestion.worker import Worker

    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    for pid in workers:
        os.waitpid(pid, 0)
    Worker(threads=2).run()
    through.touch()
    os.waitpid(follower, 0)
    return check(config)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
