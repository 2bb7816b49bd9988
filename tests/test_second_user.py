"""A second person sees nothing of the first's, on any page and with any command; a new one has to be added here.

Everything of Anna's carries the word zanzibar, in its names, texts and bytes. Bert, who has a folder of his own, asks
for every address there is, with Anna's ids, by GET and by POST, and runs every command that takes `--user`. The word
must not come back, and of Anna's rows none may have changed. What Bert himself types never holds the word.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command, get_commands, load_command_class
from django.db import transaction
from django.db.models import Q
from django.test import Client
from django.urls import get_resolver, reverse
from django.urls.resolvers import URLPattern, URLResolver
from django.utils import timezone

from ingestion.models import Crawl, SeenFile, Work
from search import (
    audit,
    changes,
    curation,
    embeddings,
    look_alike_pairs,
    panels,
    review,
    selection,
    thumbnails,
    uploads,
)
from search.models import (
    Album,
    AlbumEntry,
    Change,
    Comment,
    Favourite,
    Image,
    ImageMetadata,
    Movie,
    SavedSearch,
    SignedIn,
    Source,
    Tag,
    Upload,
    path_digest,
)
from search.spaces import look_space
from search.views import albums, curate, words
from tests.factories import make_source, make_user
from tests.pages.pictures import image_on_disk, jpeg

pytestmark = pytest.mark.django_db
WORD = "zanzibar"
OURS = ["search", "faces", "ingestion"]

PAGES: dict[str, list[str]] = {
    # name of the address: what Bert asks of it, {placeholders} being Anna's
    "search": [
        "", "?q=findme", "?q=name:findme", "?q=blue", "?q=tag:findme", "?q=is:hidden", "?q=is:removed",
        "?q=id:{image_id}", "?like={image_id}", "?unlike={image_id}", "?upload={token}",
        "?q=findme&offset=0&older=0", "?album={album}",
    ],
    "upload": [""],
    "uploaded": [""],
    "passing": ["?q=findme", "?q=blue"],
    "filters": ["", "?page=browse", "?q=findme"],
    "narrow": ["?q=findme", "?tag=findme"],
    "browse": ["", "?name=findme", "?is=hidden", "?is=removed", "?older=9999-01-01T00:00:00+00:00,{image_id}"],
    "image": ["", "?q=findme&at=0"],
    "image_panel": ["", "?q=findme&at=0"],
    "slides": [
        "?ids={image_id}", "?from={image_id}", "?from={own}&way=after", "?from={own}&q=findme&at=0",
        "?from={own}&in=album-{album}", "?from={own}&in=selection", "?from={own}&in=browse&name=findme",
    ],
    "keys": [""],
    "curate": [""],
    "review": [""],
    "review_queue": ["", "?at=9999-01-01T00:00:00Z,{image_id}", "?trail={action_id}.{image_id}"],
    "review_do": [""],
    "copies": ["", "?prefer={source}", "?older=999999999"],
    "copies_keep": [""],
    "copies_all": ["", "?prefer={source}"],
    "similar": ["", "?within=2&order=largest", "?prefer={source}", "?after=9.999999999"],
    "similar_keep": [""],
    "similar_different": [""],
    "albums": [""],
    "album": ["", "?older={image_id}"],
    "change_album": [""],
    "tags": ["", "?part=findme"],
    "tag": [""],
    "change_tag": [""],
    "searches": ["", "?page=browse"],
    "work_pause": [""],
    "work_resume": [""],
    "export": ["", "?q=findme", "?of=album&album={album}", "?of=selection"],
    "export_download": [
        "?q=findme&format=json", "?q=is:hidden&format=csv", "?of=album&album={album}&format=json",
        "?ids={image_id}&format=csv", "?of=selection&format=json", "?q=findme&format=zip", "?q=findme&format=xmp",
    ],
    "selection": ["", "?start=0"],
    "select_all": [""],
    "selection_do": [""],
    "errand": [""],
    "identify": [
        "", "?like={image_id}&among=source:{own_source}", "?like={own}&among=source:{source}",
        "?like={own}&among=album:{album}", "?like={own}&among=tag:{tag}", "?upload={token}&among=source:{own_source}",
    ],
    "tag_suggestions": ["?tag=", "?tag=findme", "?tag=z"],
    "undo": [""],
    "history": ["", "?older=999999"],
    "thumbnail": ["", "?strict"],
    "picture": ["", "?v={digest}"],
    "original": [""],
    "movie": ["", "?download"],
    "favicon": [""],
    "signin": ["", "?next=/image/{image_id}/"],
    "account": [""],
    "password": [""],
    "end_session": [""],
    "end_other_sessions": [""],
    "invitation": [""],
    "access": [""],
    "source_access": [""],
    "accounts": ["", "?after=a"],
    "account_of": [""],
    "audit": ["", "?person=findme", "?kind=opened", "?kind=changed"],
    "audit_export": ["", "?person=findme"],
    "welcome": [""],
    "progress": [""],
    "problems": ["", "?kind=findme&why=unsupported", "?older={image_id}"],
    "problem_retry": [""],
    "spaces": [""],
    "space_add": [""],
    "space_rollback": [""],
    "space_compare": ["", "?q=findme", "?like={image_id}"],
    "space_remove": [""],
    "space_verb": [""],
    "health": [""],
    "ready": [""],
    "signout": [""],
    "help": [""],
    "help_chapter": [""],
    "help_picture": [""],
}  # fmt: skip

SHOWN_TO_ANNA = {
    "search", "filters", "browse", "image", "image_panel", "slides", "selection", "albums", "album", "tags", "tag",
    "searches",
    "tag_suggestions", "history", "thumbnail", "picture", "original", "movie", "account", "access", "source_access",
    "audit", "audit_export", "problems",
}  # fmt: skip
"""Where Anna herself meets the word: the search for it is no idle one."""

TAKE_A_VERB = {"accounts", "account_of", "source_access", "selection_do", "errand"}
"""Addresses whose forms say in a field what is to be done: each of the verbs is sent to them."""

NOT_THERE = {
    "image",
    "image_panel",
    "thumbnail",
    "picture",
    "original",
    "movie",
    "uploaded",
    "source_access",
    "album",
    "tag",
}
"""Addresses of one thing of Anna's: for Bert there is no such page."""

COMMANDS: dict[str, list[list[str]]] = {
    "search": [["findme"], ["blue", "--json"], ["tag:findme"], ["is:hidden", "--json"], ["name:findme", "--json"]],
    "identify": [
        ["--like", "{image_id}", "--source", "bert"],
        ["--like", "{own}", "--tag", "beach"],
        ["--like", "{own}", "--tag", "beach", "--json"],
        ["{tmp}/bert/own.jpg", "--tag", "beach"],
    ],
    "export": [
        ["findme", "--format", "json", "--to", "{tmp}/all.json"],
        ["--format", "csv", "--to", "-"],
        ["--format", "json", "--to", "{tmp}/album.json", "--album", "{album}"],
        ["--format", "json", "--to", "{tmp}/ids.out.json", "--ids", "{image_id}"],
    ],
    "review": [[], ["--json"], ["unrated"], ["unrated", "--json"], ["flagged"]],
    "copies": [[], ["--json"], ["--hide-others", "--yes"], ["--prefer", "bert", "--json"]],
    "similar": [["--refresh"], ["--json"], ["--within", "3", "--json"]],
    "stats": [[], ["--json"]],
    "problems": [[], ["--json"], ["--retry", "{image_id}"], ["--retry"]],
    "embed": [["--dry-run"], ["--dry-run", "--json"], ["--space", "look"]],
    "export_embeddings": [["{tmp}/out.json", "--format", "json"], ["{tmp}/found.json", "--filter", "name:findme"]],
    "import_embeddings": [["{tmp}/rows.npy", "--ids", "{tmp}/ids.json", "--json"]],
    "index": [["{tmp}/folder-of-bert"]],
}
SHOWN_TO_THE_COMMAND_LINE = {"search", "problems", "identify", "export_embeddings"}


def addresses() -> dict[str, URLPattern]:
    """Every address of our own, by its name (Django's admin is tested apart)."""

    def walk(patterns: Any) -> Any:
        for one in patterns:
            if isinstance(one, URLResolver):
                if one.app_name != "admin":
                    yield from walk(one.url_patterns)
            else:
                yield str(one.name), one

    return dict(walk(get_resolver().url_patterns))


def commands() -> set[str]:
    """Our commands that take `--user`."""
    ours = {name: app for name, app in get_commands().items() if app in OURS}
    return {name for name, app in ours.items() if getattr(load_command_class(app, name), "for_user", False)}


def test_every_page_is_covered_here() -> None:
    missing, gone = set(addresses()) - set(PAGES), set(PAGES) - set(addresses())
    assert not missing, f"add to PAGES, with what a stranger might ask of it: {sorted(missing)}"
    assert not gone, f"no such address any more: {sorted(gone)}"


def test_every_command_for_a_user_is_covered_here() -> None:
    missing, gone = commands() - set(COMMANDS), set(COMMANDS) - commands()
    assert not missing, f"add to COMMANDS, with what a stranger might run: {sorted(missing)}"
    assert not gone, f"no such command with --user any more: {sorted(gone)}"


class World:
    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.anna, self.bert = make_user(f"findme-{WORD}"), make_user("bert")
        for user in (self.anna, self.bert):
            user.groups.add(Group.objects.create(name=f"group of {user.username}"))
        self.source = self._source(self.anna, WORD)
        self.hers = self._image(self.source, f"findme-{WORD}.jpg")
        hidden, removed = (self._image(self.source, f"{what}-findme-{WORD}.jpg") for what in ("hidden", "removed"))
        self._read([self.hers.pk, hidden.pk, removed.pk])
        self.action = curation.tag([self.hers.pk], [f"findme {WORD}"], self.anna)
        curation.hide([hidden.pk], self.anna)
        curation.remove([removed.pk], self.anna)
        Image.objects.update(read_at=timezone.now())
        review.settle(Image.objects.values_list("pk", flat=True))
        curation.flag([self.hers.pk], self.anna)
        broken = self._image(self.source, f"broken-{WORD}.jpg", state="unreadable", reason=f"Broken by {WORD}.")
        Work.objects.create(image=broken, stage="read", state="failed", newest=1, reason=f"Broken by {WORD}.")
        name = f"{WORD}.pdf".encode()
        SeenFile.objects.create(
            source=self.source, path=name, path_digest=path_digest(name), directory=path_digest(b""), size=1,
            mtime_ns=1, why="unsupported", kind=f"findme {WORD}",
        )  # fmt: skip
        film = (Path(__file__).parent / "files" / "live.mov").read_bytes() + WORD.encode()
        (self.tmp / WORD / f"findme-{WORD}.mov").write_bytes(film)
        Movie.objects.create(image=self.hers, name=f"findme-{WORD}.mov".encode(), size=len(film), mtime_ns=1)
        Crawl.objects.create(source=self.source)
        Comment.objects.create(image=self.hers, author=self.anna, text=WORD)
        Favourite.objects.create(image=self.hers, user=self.anna)
        self.album = Album.objects.create(owner=self.anna, name=f"findme {WORD}", description=WORD)
        AlbumEntry.objects.create(album=self.album, image=self.hers, position=1)
        self.saved = SavedSearch.objects.create(user=self.anna, name=WORD, query=f"q={WORD}")
        selection.change(self.anna, add=[self.hers.pk])
        self.upload = uploads.keep(self._file(jpeg("green")), self.anna)
        Upload.objects.filter(pk=self.upload.pk).update(name=WORD)
        audit.record(audit.Kind.OPENED, self.anna, image=self.hers)
        self.as_anna = Client(headers={"User-Agent": WORD}, REMOTE_ADDR="203.0.113.77")
        self.as_anna.force_login(self.anna)
        SignedIn.objects.update(browser=WORD)
        self.session = SignedIn.objects.get(user=self.anna)
        his = self._image(self._source(self.bert, "bert"), "own.jpg")
        self._read([his.pk])
        self.own = his
        for image, user in ((self.hers, self.anna), (his, self.bert)):
            curation.tag([image.pk], ["beach"], user)  # a word that both use
        self.tag = Tag.objects.get(key="beach")
        self.private = Tag.objects.get(key=f"findme {WORD}")
        with transaction.atomic():
            changes.record(Change.Kind.IMAGES, list(Image.objects.values_list("pk", flat=True)))
        Image.objects.update(perceptual_hash=0x0F0F0F0F0F0F0F0F, uniformity=0.1)
        look_alike_pairs.refresh()
        self.as_bert = Client()
        self.as_bert.force_login(self.bert)
        (tmp / "ids.json").write_text(json.dumps({str(self.hers.pk): 0}))
        np.save(tmp / "rows.npy", np.eye(1, look_space().dim, dtype=np.float32))
        (tmp / "folder-of-bert").mkdir()

    def _source(self, owner: Any, name: str) -> Source:
        (self.tmp / name).mkdir()
        return make_source(self.tmp / name, owner=owner, name=name)

    def _image(self, source: Source, name: str, **fields: Any) -> Image:
        data = jpeg("blue") + (WORD.encode() if WORD in name else b"")
        image = image_on_disk(
            source, name, data, title=name, folder=WORD if WORD in name else "", camera=name[:40], **fields
        )
        image.refresh_from_db()
        ImageMetadata.objects.create(image=image, exif={"Artist": name})
        thumbnails.save(image.pk, data)
        return image

    def _file(self, data: bytes) -> Any:
        from django.core.files.uploadedfile import SimpleUploadedFile

        return SimpleUploadedFile("picture.jpg", data)

    def _read(self, ids: list[int]) -> None:
        rows = np.zeros((len(ids), look_space().dim), np.float32)
        rows[:, 0] = 1
        embeddings.record(look_space(), np.array(ids), rows)

    def fill(self, text: str) -> str:
        return text.format(
            image_id=self.hers.pk, own=self.own.pk, source=self.source.pk, own_source=self.own.source_id,
            tag=self.tag.pk, token=self.upload.token, album=self.album.pk, tmp=self.tmp,
            digest=(self.hers.sha256 or b"").hex()[:16], action_id=self.action.pk if self.action else 0,
        )  # fmt: skip

    def argument(self, name: str, part: str) -> list[Any]:
        """Anna's values for one part of an address."""
        known: dict[str, list[Any]] = {
            "image_id": [self.hers.pk],
            "action_id": [self.action.pk if self.action else 0],
            "session_id": [self.session.pk],
            "source_id": [self.source.pk],
            "person_id": [self.anna.pk],
            "album_id": [self.album.pk],
            "tag_id": [self.private.pk],
            "token": [self.upload.token],
            "uidb64": ["MQ"],
            "queue": ["unrated", "untagged", "flagged"],
            "name": ["search" if name == "help_picture" else look_space().name],
            "slug": ["curating"],
            "verb": sorted({*curate.VERBS, *albums.VERBS, *words.TAG_VERBS, "pause", "activate"}),
        }
        assert part in known, f"say in `argument` what of Anna's stands for <{part}> in the address {name}"
        return known[part]

    def pages(self, name: str, pattern: URLPattern) -> list[str]:
        """The addresses to ask for: each value of Anna's, each of the questions."""
        choices: list[dict[str, Any]] = [{}]
        for part in pattern.pattern.converters:
            choices = [{**one, part: value} for one in choices for value in self.argument(name, part)]
        return [reverse(name, kwargs=one) + self.fill(query) for one in choices for query in PAGES.get(name, [""])]

    def posted(self) -> list[dict[str, Any]]:
        """What Bert sends: whatever any of the forms might take, with Anna's ids."""
        given = {
            "image": self.hers.pk, "images": self.hers.pk, "ids": self.hers.pk, "id": self.hers.pk, "tag": "mine",
            "rating": "5", "title": "mine", "text": "mine", "username": "mallory", "password": "x", "name": "bert",
            "whom": "user", "role": "owner", "access": self.source.access.get().pk, "album": self.album.pk,
            "group": Group.objects.order_by("pk").values_list("pk", flat=True)[0], "next": f"/image/{self.hers.pk}/",
            "keeper": self.hers.pk, "prefer": self.source.pk,
            "add": self.hers.pk, "person": "bert", "to": "1",
            "by": "name", "into": "mine", "colour": "red", "parent": "",
            "like": self.hers.pk, "upload": self.upload.token, "query": f"like={self.hers.pk}",
        }  # fmt: skip
        verbs = ["give", "take", "role", "make", "off", "link", "end", "join", "leave", "add", "delete", "rename"]
        verbs += [
            "keep",
            "again",
            "flag",
            "unflag",
            "rate:5",
            "undo",
            "tag",
            "untag",
            "rate",
            "title",
            "hide",
            "remove",
            "restore",
            "favourite",
            "typed",
            "album",
            "out",
        ]
        return [given, *({**given, "verb": verb} for verb in verbs)]

    def hers_as_they_stand(self) -> dict[str, list[dict[str, Any]]]:
        """Every row that hangs on Anna, on her folder or its images, on her album."""
        owners = {get_user_model(): self.anna, Source: self.source, Album: self.album}
        found = {
            "tag": list(Tag.objects.filter(pk=self.private.pk).values()),
            "user": list(get_user_model().objects.filter(pk=self.anna.pk).values()),
        }
        models = [model for label in OURS for model in apps.get_app_config(label).get_models()]
        models += [model._meta.get_field("groups").remote_field.through for model in [get_user_model()]]
        for model in models:
            wanted = Q(pk__in=[])
            for field in model._meta.get_fields():
                if field.auto_created or field.related_model is None:
                    continue
                if field.related_model in owners:
                    wanted |= Q(**{field.name: owners[field.related_model]})
                elif field.related_model is Image and not field.many_to_many:
                    wanted |= Q(**{f"{field.name}__source": self.source})
            found[model._meta.label] = list(model._default_manager.filter(wanted).distinct().order_by("pk").values())
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def body(response: Any) -> str:
    content = b"".join(response.streaming_content) if response.streaming else response.content
    return (content.decode("utf-8", "replace") + str(response.headers)).casefold()


def test_anna_herself_meets_the_word(world: World) -> None:
    assert set(PAGES) >= SHOWN_TO_ANNA
    for name in SHOWN_TO_ANNA:
        pages = world.pages(name, addresses()[name])
        assert any(WORD in body(world.as_anna.get(page)) for page in pages), f"{name}: the word is not there at all"


def test_what_is_the_first_persons_is_not_there_for_the_second(world: World) -> None:
    for name in NOT_THERE:
        for page in world.pages(name, addresses()[name]):
            assert world.as_bert.get(page).status_code == 404, page
            assert world.as_anna.get(page).status_code == 200, page


def test_what_is_for_those_who_run_the_installation_is_refused_in_one_way(world: World) -> None:
    for page in ("/accounts/", f"/accounts/{world.anna.pk}/", "/accounts/999999/", "/spaces/", "/spaces/compare/"):
        response = world.as_bert.get(page)
        assert response.status_code == 403 and "those who run this installation" in response.content.decode(), page


def test_no_page_shows_a_second_person_anything(world: World) -> None:
    shown = [
        page
        for name, pattern in addresses().items()
        if name != "signout"
        for page in world.pages(name, pattern)
        for headers in ({}, {"HX-Request": "true"})
        if WORD in body(world.as_bert.get(page, headers=headers))
    ]
    assert not shown


def test_no_form_changes_or_shows_anything_of_the_first(world: World) -> None:
    before = world.hers_as_they_stand()
    assert sum(map(bool, before.values())) >= 14, "nearly every kind of row is there"
    shown = []
    for name, pattern in addresses().items():
        if name in {"signout", "signin", "password"}:
            continue  # they are about Bert alone
        for page in world.pages(name, pattern):
            for data in world.posted() if name in TAKE_A_VERB else world.posted()[:1]:
                if WORD in body(world.as_bert.post(page, data)):
                    shown.append((page, data.get("verb")))
    assert not shown
    for page in ("/", "/history/", "/selection/", "/audit/", "/account/", "/access/"):
        assert WORD not in body(world.as_bert.get(page)), f"{page}, afterwards"
    after = world.hers_as_they_stand()
    assert {name for name in before if before[name] != after[name]} == set()


def test_the_admin_is_closed_to_people(world: World) -> None:
    from django.contrib import admin

    for model in admin.site._registry:
        address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        assert world.as_bert.get(address)["Location"].startswith("/admin/login/"), address


@pytest.mark.django_db(transaction=True)  # some of them work in threads of their own
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_no_command_for_a_second_person_shows_or_changes_anything(world: World, name: str, capfd: Any) -> None:
    def run(*arguments: str) -> str:
        given = [world.fill(one) for one in arguments]
        try:
            call_command(name, *given)
        except (Exception, SystemExit) as error:  # its sentence is looked at as well
            return f"{error} {capfd.readouterr()}"
        files = [Path(one) for one in given if one.startswith(str(world.tmp)) and one.endswith("json")]
        return "".join([str(capfd.readouterr()), *(one.read_text() for one in files if one.exists())])

    before = world.hers_as_they_stand()
    for arguments in COMMANDS[name]:
        said = run(*arguments, "--user", "bert", *(["--overwrite"] if name.startswith("export") else []))
        assert WORD not in said.casefold().replace(str(world.tmp).casefold(), ""), said
    after = world.hers_as_they_stand()
    assert {kind for kind in before if before[kind] != after[kind]} == set()
    if name in SHOWN_TO_THE_COMMAND_LINE:
        everything = [run(*one, *(["--overwrite"] if name.startswith("export") else [])) for one in COMMANDS[name]]
        assert any(WORD in said.casefold() for said in everything), "without --user the word is there"


def test_panels_of_other_apps_are_given_the_person_who_looks(world: World) -> None:
    """What is registered for image pages is asked with the user, and Anna's page is closed to Bert before that."""
    assert world.as_bert.get(f"/image/{world.hers.pk}/").status_code == 404
    for panel in panels.image_panels(world.hers, world.bert):
        assert WORD not in str(panel.context).casefold()


def test_sessions_that_are_over_open_nothing(world: World) -> None:
    SignedIn.objects.filter(user=world.bert).update(seen_at=timezone.now() - timedelta(days=1))
    world.as_bert.post("/signout")
    for name, pattern in addresses().items():
        for page in world.pages(name, pattern):
            assert WORD not in body(world.as_bert.get(page)), page
