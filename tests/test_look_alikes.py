"""Look-alikes: which groups a person meets, hiding the others, telling apart, and the file that is made in the
background."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage
from PIL import ImageEnhance, ImageOps

from ingestion import fingerprints, tasks
from search import curation, look_alike_pairs, look_alikes, stacks
from search.errors import BadValue, IndexNotMade, NotAllowed, StoreFault
from search.models import Difference, Favourite, Image, ImageTag
from search.queues import queue_named
from tests.conftest import reset_factories
from tests.factories import make_image, make_source, make_user
from tests.test_copies import hidden, ids_of, note, sha

pytestmark = pytest.mark.django_db

BASE = 0x0F0F0F0F0F0F0F0F
OTHER = 0x3333CCCC3333CCCC


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def bits(*places: int) -> int:
    return sum(1 << place for place in places)


def picture(source: Any, path: str, value: int = BASE, **fields: Any) -> Image:
    image = make_image(source, path, perceptual_hash=signed(value), uniformity=0.1, **{"sha256": sha(path), **fields})
    note(image)
    return image


def found(user: Any, **options: Any) -> list[list[int]]:
    look_alike_pairs.refresh()
    return [sorted(ids) for ids in ids_of(look_alikes.groups(user, **options)[0])]


@pytest.fixture
def anna() -> Any:
    return make_user("anna")


@pytest.fixture
def source(anna: Any) -> Any:
    return make_source(owner=anna, name="photos")


# --- which groups


def test_pictures_within_the_distance_are_a_group_newest_first(anna: Any, source: Any) -> None:
    a, b = picture(source, "a.jpg"), picture(source, "a small.jpg", BASE ^ bits(0, 20, 40, 50, 63))
    picture(source, "far.jpg", BASE ^ bits(1, 2, 3, 4, 5, 6))
    c, d = picture(source, "c.jpg", OTHER), picture(source, "d.jpg", OTHER)
    assert found(anna) == [[c.pk, d.pk], [a.pk, b.pk]]
    assert found(anna, within=4) == [[c.pk, d.pk]]
    assert look_alikes.tally(anna) == look_alikes.Tally(groups=2, hiding=2)
    queue = queue_named("look-alikes")
    assert queue is not None and str(queue.counter(anna)) == "2" and queue.url() == "/similar/"


def test_what_is_near_to_a_neighbour_only_does_not_chain_on(anna: Any, source: Any) -> None:
    chain = [picture(source, f"{n}.jpg", BASE ^ bits(*range(4 * n))) for n in range(4)]
    groups = found(anna)
    assert all(len(group) <= 3 for group in groups)
    assert not any({chain[0].pk, chain[3].pk} <= set(group) for group in groups)


def test_nothing_is_said_before_it_was_looked_for(anna: Any, source: Any) -> None:
    picture(source, "a.jpg"), picture(source, "b.jpg")
    assert look_alikes.groups(anna) == ([], None) and look_alikes.tally(anna).groups == 0


def test_exact_copies_alone_are_no_look_alikes_and_count_beside_one(anna: Any, source: Any) -> None:
    a, b = picture(source, "a.jpg", sha256=sha("x")), picture(source, "b.jpg", sha256=sha("x"))
    assert found(anna) == []
    c = picture(source, "c.jpg", BASE ^ 1)
    assert found(anna) == [[a.pk, b.pk, c.pk]]


@pytest.mark.parametrize("fields", [{"uniformity": 0.97}, {"perceptual_hash": 0}, {"perceptual_hash": bits(1, 2, 60)}])
def test_pictures_without_structure_are_left_out(anna: Any, source: Any, fields: dict[str, Any]) -> None:
    for number in range(3):
        image = picture(source, f"{number}.jpg")
        Image.objects.filter(pk=image.pk).update(**fields)
    assert found(anna) == []
    known = look_alike_pairs.known()
    assert known is not None and known.flat == 3 and known.hashed == 0


def test_hidden_and_removed_ones_leave_at_once_and_come_back(anna: Any, source: Any) -> None:
    a, b, c = (picture(source, f"{n}.jpg", BASE ^ n) for n in range(3))
    assert found(anna) == [[a.pk, b.pk, c.pk]]
    done = curation.hide([a.pk], anna)
    assert [sorted(ids) for ids in ids_of(look_alikes.groups(anna)[0])] == [[b.pk, c.pk]]
    curation.remove([b.pk], anna)
    assert look_alikes.groups(anna)[0] == []
    curation.undo(done, anna)
    assert [sorted(ids) for ids in ids_of(look_alikes.groups(anna)[0])] == [[a.pk, c.pk]]


def test_one_that_was_read_anew_waits_until_it_is_looked_for_again(anna: Any, source: Any) -> None:
    a, b, c = (picture(source, f"{n}.jpg", BASE ^ n) for n in range(3))
    assert found(anna) == [[a.pk, b.pk, c.pk]]
    Image.objects.filter(pk=c.pk).update(perceptual_hash=signed(OTHER))
    assert [sorted(ids) for ids in ids_of(look_alikes.groups(anna)[0])] == [[a.pk, b.pk]]


def test_what_lies_beneath_a_cover_is_no_look_alike_and_goes_with_it(anna: Any, source: Any) -> None:
    raw, jpeg = picture(source, "a.cr2"), picture(source, "a.jpg", BASE ^ 1)
    stacks.stack([raw.pk, jpeg.pk], anna)
    assert found(anna) == []
    small = picture(source, "small.jpg", BASE ^ 2)
    (group,) = found(anna)
    cover = next(pk for pk in group if pk != small.pk)
    assert len(group) == 2 and cover in {raw.pk, jpeg.pk}
    done = look_alikes.hide_others(small.pk, group, anna)
    assert hidden() == {raw.pk, jpeg.pk}
    curation.undo(done, anna)
    assert not hidden()


# --- what others may not see


def test_groups_are_made_of_what_a_person_may_see(anna: Any, source: Any) -> None:
    """Two pictures that only a third one joins, which is somebody else's, are no group: it would tell of the third."""
    bert, staff = make_user("bert"), make_user("staff", staff=True)
    his = make_source(owner=bert, name="his")
    left, right = picture(source, "a.jpg", BASE ^ bits(0, 1, 2, 3)), picture(source, "b.jpg", BASE ^ bits(5, 6, 7, 8))
    middle = picture(his, "m.jpg")
    assert found(anna) == [] and look_alikes.tally(anna).groups == 0
    assert found(bert) == []
    assert found(staff) == found(None) == [[left.pk, right.pk, middle.pk]]
    near = picture(source, "c.jpg", BASE ^ bits(0, 1, 2, 4))
    assert found(anna) == [[left.pk, near.pk]]
    (group,), _ = look_alikes.groups(anna)
    assert (group.total, group.hiding, group.key) == (2, 1, near.pk)
    assert look_alikes.tally(anna) == look_alikes.Tally(1, 1)
    assert found(bert) == []


def test_what_one_may_only_look_at_stands_beside_and_stays(anna: Any, source: Any) -> None:
    bert = make_user("bert")
    his = make_source(owner=bert, viewer=anna, name="his")
    a, theirs = picture(source, "a.jpg"), picture(his, "t.jpg", BASE ^ 1)
    assert found(anna) == []
    b = picture(source, "b.jpg", BASE ^ 2)
    (group,) = found(anna)
    assert group == [a.pk, theirs.pk, b.pk]
    shown = look_alikes.groups(anna)[0][0]
    assert [one.editable for one in shown.copies] == [True, True, False] and shown.hiding == 1
    look_alikes.hide_others(a.pk, group, anna)
    assert hidden() == {b.pk}
    with pytest.raises(BadValue, match="may only look at"):
        look_alikes.hide_others(theirs.pk, [a.pk], anna)
    with pytest.raises(BadValue, match="not among your pictures"):
        look_alikes.hide_others(a.pk, [], bert)
    with pytest.raises(NotAllowed):
        look_alikes.tell_apart([theirs.pk], anna)


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_library_gives_groups_of_bounded_width_without_those_told_apart(data: Any, anna: Any, source: Any) -> None:
    reset_factories()  # the numbers of the change log come again after the roll-back below
    with transaction.atomic():
        flips = st.lists(st.integers(0, 63), max_size=7)
        values = [BASE ^ bits(*set(one)) for one in data.draw(st.lists(flips, min_size=2, max_size=14))]
        images = [picture(source, f"{len(values)}-{n}.jpg", value) for n, value in enumerate(values)]
        pks = [image.pk for image in images]
        value_of = dict(zip(pks, values, strict=True))
        apart: list[set[int]] = []
        for some in data.draw(st.lists(st.sets(st.sampled_from(pks), min_size=2, max_size=5), max_size=3)):
            look_alikes.tell_apart(sorted(some), anna)
            apart.append(some)
        groups = [set(group) for group in found(anna)]
        for group in groups:
            assert len(group) >= 2
            assert not any(len(group & some) > 1 for some in apart)
            widest = max((value_of[a] ^ value_of[b]).bit_count() for a in group for b in group)
            assert widest <= 10
            assert any(all((value_of[a] ^ value_of[b]).bit_count() <= 5 for b in group) for a in group)
        assert sum(len(group) for group in groups) == len(set().union(*groups)) if groups else True
        if not groups:  # then no two are near, but those told apart
            for a in pks:
                for b in pks:
                    near = a != b and (value_of[a] ^ value_of[b]).bit_count() <= 5
                    assert not near or any({a, b} <= some for some in apart)
        transaction.set_rollback(True)


# --- keeping one


def test_hiding_carries_over_what_people_decided_and_undo_takes_it_back(anna: Any, source: Any) -> None:
    large = picture(source, "large.jpg", width=4000, height=3000, size=9_000)
    small = picture(source, "small.jpg", BASE ^ 1, width=400, height=300)
    look_alike_pairs.refresh()
    (group,), _ = look_alikes.groups(anna)
    assert group.keeper.image.pk == large.pk and group.reason == "Kept because it has the most pixels."
    curation.tag([small.pk], ["beach"], anna)
    Favourite.objects.create(image=small, user=anna)
    done = look_alikes.hide_others(large.pk, [small.pk, large.pk], anna)
    assert done is not None and done.summary == "Hid 1 look-alike of 1 picture"
    assert hidden() == {small.pk}
    assert ImageTag.objects.filter(image=large, tag__name="beach").exists()
    assert Favourite.objects.filter(image=large, user=anna).exists()
    assert look_alikes.groups(anna)[0] == []
    curation.undo(done, anna)
    assert not hidden() and not ImageTag.objects.filter(image=large).exists()
    assert len(look_alikes.groups(anna)[0]) == 1


def test_what_people_did_counts_before_pixels(anna: Any, source: Any) -> None:
    picture(source, "large.jpg", width=4000, height=3000)
    small = picture(source, "small.jpg", BASE ^ 1, width=400, height=300, rating=4)
    look_alike_pairs.refresh()
    (group,), _ = look_alikes.groups(anna)
    assert group.keeper.image.pk == small.pk and "rated 4 stars" in group.reason


def test_the_camera_s_own_file_is_kept_before_a_larger_one_that_was_made_of_it(anna: Any, source: Any) -> None:
    original = picture(source, "a.jpg", camera="Canon EOS R5", size=5_000)
    picture(source, "a edited.png", size=50_000)
    look_alike_pairs.refresh()
    (group,), _ = look_alikes.groups(anna)
    assert group.keeper.image.pk == original.pk and group.reason == "Kept because it says which camera took it."


def test_only_what_looks_like_the_keeper_is_hidden(anna: Any, source: Any) -> None:
    a, b, c = picture(source, "a.jpg"), picture(source, "b.jpg", BASE ^ 1), picture(source, "c.jpg", OTHER)
    unread = make_image(source, "unread.jpg")
    for strange in (c, unread):
        with pytest.raises(BadValue, match="does not look like"):
            look_alikes.hide_others(a.pk, [b.pk, strange.pk], anna)
    assert not hidden()
    assert look_alikes.hide_others(a.pk, [a.pk], anna) is None


# --- telling apart


def test_those_told_apart_do_not_come_back_until_it_is_undone(anna: Any, source: Any) -> None:
    a, b = picture(source, "a.jpg"), picture(source, "b.jpg", BASE ^ 1)
    assert found(anna) == [[a.pk, b.pk]]
    done = look_alikes.tell_apart([a.pk, b.pk], anna)
    assert done is not None and done.summary == "Said that 2 pictures are different ones"
    assert found(anna) == [] and look_alikes.tally(anna).groups == 0
    assert {(one.image_id, one.by) for one in Difference.objects.all()} == {(a.pk, anna), (b.pk, anna)}
    third = picture(source, "c.jpg", BASE ^ 2)
    (group,) = found(anna)
    assert third.pk in group and len(group) == 2, "near to both, with one of them"
    back = curation.undo(done, anna)
    assert found(anna) == [[a.pk, b.pk, third.pk]] and not Difference.objects.exists()
    curation.undo(back, anna)
    assert len(found(anna)[0]) == 2 and Difference.objects.filter(by=anna).count() == 2


def test_others_of_the_same_hash_stay_alike(anna: Any, source: Any) -> None:
    a, b, c, d = (picture(source, f"{n}.jpg") for n in range(4))
    look_alikes.tell_apart([a.pk, b.pk], anna)
    (group,) = found(anna)
    assert {c.pk, d.pk} < set(group) and len(group) == 3


def test_it_is_undone_after_who_said_it_is_gone(anna: Any, source: Any) -> None:
    bert = make_user("bert", staff=True)
    a, b = picture(source, "a.jpg"), picture(source, "b.jpg")
    done = look_alikes.tell_apart([a.pk, b.pk], bert)
    back = curation.undo(done, None)
    bert.delete()
    curation.undo(back, None)
    assert set(Difference.objects.values_list("by", flat=True)) == {None}


def test_one_picture_is_not_told_apart(anna: Any, source: Any) -> None:
    a = picture(source, "a.jpg")
    with pytest.raises(BadValue, match="Two pictures"):
        look_alikes.tell_apart([a.pk], anna)


# --- pages of groups


@pytest.mark.parametrize("order", ["newest", "largest"])
def test_pages_of_groups_neither_overlap_nor_leave_any_out(anna: Any, source: Any, order: str) -> None:
    random = np.random.default_rng(4)
    for number in range(7):
        base = int(random.integers(0, 2**63)) | (2**31 - 1)
        for one in range(2 + number % 3):
            picture(source, f"{number}-{one}.jpg", base ^ one)
    look_alike_pairs.refresh()
    sizes: list[int] = []
    keys: list[int] = []
    after: tuple[int, int] | None = None
    while True:
        groups, after = look_alikes.groups(anna, order=order, after=after, limit=3)
        sizes += [group.total for group in groups]
        keys += [group.key for group in groups]
        if after is None:
            break
    assert len(keys) == len(set(keys)) == 7
    assert sizes == sorted(sizes, reverse=True) if order == "largest" else keys == sorted(keys, reverse=True)


def test_groups_take_as_many_queries_however_many_there_are(anna: Any, source: Any) -> None:
    def queries() -> int:
        look_alike_pairs.refresh()
        look_alikes.tally(anna)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            look_alikes.groups(anna, limit=50)
        return len(captured)

    picture(source, "a.jpg"), picture(source, "b.jpg")
    few = queries()
    random = np.random.default_rng(5)
    for number in range(20):
        base = int(random.integers(0, 2**63)) | (2**31 - 1)
        pair = [picture(source, f"{number}-{one}.jpg", base) for one in range(3)]
        if number % 4 == 0:
            look_alikes.tell_apart([one.pk for one in pair[:2]], anna)
    assert queries() <= few
    assert look_alikes.tally(anna).groups == 21


# --- the file


def test_the_file_is_a_cache(anna: Any, source: Any) -> None:
    picture(source, "a.jpg"), picture(source, "b.jpg")
    assert look_alike_pairs.due() and len(found(anna)) == 1 and not look_alike_pairs.due()
    whole = look_alike_pairs.path().read_bytes()
    for broken in (b"", b"x" * 100, whole[: len(whole) // 2], whole[:-200]):
        look_alike_pairs.path().write_bytes(broken)
        assert look_alike_pairs.known() is None and look_alikes.groups(anna) == ([], None)
        assert look_alike_pairs.due()
    assert len(found(anna)) == 1
    look_alike_pairs.forget()
    assert look_alike_pairs.known() is None
    assert len(found(anna)) == 1


def test_it_is_due_after_changes_and_a_while_or_another_setting(
    anna: Any, source: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not look_alike_pairs.due(), "an empty library"
    picture(source, "a.jpg"), picture(source, "b.jpg")
    look_alike_pairs.refresh()
    picture(source, "c.jpg")
    assert not look_alike_pairs.due(), "just looked for"
    monkeypatch.setattr(look_alike_pairs, "LEAST_SECONDS", 0)
    monkeypatch.setattr(look_alike_pairs, "SHARE", 0)
    assert look_alike_pairs.due()
    look_alike_pairs.refresh()
    assert not look_alike_pairs.due(), "nothing changed"
    settings.IMAGESEARCH_LOOK_ALIKES = 3
    assert look_alike_pairs.due()


def test_too_many_pairs_are_said(anna: Any, source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        picture(source, f"{number}.jpg", BASE ^ (number << 8))
    monkeypatch.setattr(look_alike_pairs, "MOST_PAIRS", 5)
    known = look_alike_pairs.refresh()
    assert known.asked == 5 and known.within < 5


def test_one_looks_for_them_at_a_time(anna: Any, source: Any) -> None:
    with look_alike_pairs._alone(), pytest.raises(IndexNotMade, match="already"):
        look_alike_pairs.refresh()
    look_alike_pairs.refresh()


def test_a_folder_that_cannot_be_written_is_said(anna: Any) -> None:
    look_alike_pairs.path().with_suffix(".lock").mkdir(parents=True)
    with pytest.raises(StoreFault, match="cannot be written"):
        look_alike_pairs.refresh()


def test_a_disk_that_is_full_is_said_and_leaves_the_last_ones(
    anna: Any, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(source, "a.jpg"), picture(source, "b.jpg")
    look_alike_pairs.refresh()
    before = look_alike_pairs.path().read_bytes()
    look_alike_pairs.path().with_name("look-alikes.npz.new").mkdir()
    with pytest.raises(StoreFault, match="cannot be kept"):
        look_alike_pairs.refresh()
    assert look_alike_pairs.path().read_bytes() == before


# --- real photographs


def test_versions_of_a_photograph_are_one_group_and_other_photographs_are_not(
    shared: Path, anna: Any, source: Any
) -> None:
    photos = sorted((shared / "photos" / "captioned").rglob("*.jpg"))[::12][:60]
    assert len(photos) >= 40
    families: list[set[int]] = []
    for number, file in enumerate(photos):
        with PilImage.open(file) as opened:
            photo = ImageOps.exif_transpose(opened).convert("RGB")
        half = photo.resize((photo.width // 2, photo.height // 2), PilImage.Resampling.LANCZOS)
        poor = io.BytesIO()
        photo.save(poor, "JPEG", quality=30)
        versions = {
            "whole": photo,
            "half": half,
            "tiny": photo.resize((160, round(160 * photo.height / photo.width))),
            "poor": PilImage.open(poor),
            "bright": ImageEnhance.Brightness(photo).enhance(1.15),
        }
        family = set()
        for name, version in versions.items():
            said = fingerprints.fingerprint(version)
            image = picture(
                source, f"{number} {name}.jpg", said.perceptual_hash % 2**64, width=version.width,
                height=version.height,
            )  # fmt: skip
            family.add(image.pk)
        families.append(family)
    groups = [set(group) for group in found(anna, limit=1_000)]
    for group in groups:
        assert sum(bool(group & family) for family in families) == 1, "never two photographs in one group"
    together = sum(len(family & group) for family in families for group in groups)
    whole = sum(family in groups for family in families)
    assert together >= 0.97 * sum(len(family) for family in families)
    assert whole >= 0.85 * len(families)


# --- the command


def test_the_command_lists_counts_and_looks_anew(anna: Any, source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "nice", lambda by: 0)

    def run(*arguments: str) -> str:
        out = io.StringIO()
        call_command("similar", *arguments, stdout=out)
        return out.getvalue()

    with pytest.raises(CommandError, match="--refresh"):
        run()
    a, b = picture(source, "a.jpg", rating=3), picture(source, "b.jpg", BASE ^ 0b111)
    text = run("--refresh")
    assert "2 pictures that look alike. Kept because it is rated 3 stars." in text
    assert f"keep  {a.pk:>8}" in text and f"hide  {b.pk:>8}" in text
    assert "1 group of look-alikes; 1 picture could be hidden." in text
    report = json.loads(run("--json", "--user", "anna"))
    assert (report["count"], report["to_hide"], report["within"]) == (1, 1, 5)
    assert [one["id"] for one in report["groups"][0]["pictures"]] == [a.pk, b.pk]
    assert run("--within", "2").strip() == "No look-alikes."
    assert "a.jpg" not in run("--no-list")
    for within in ("-1", "6"):
        with pytest.raises(CommandError, match="0 to 5"):
            run("--within", within)
    make_user("bert")
    assert run("--user", "bert").strip() == "No look-alikes."


@pytest.mark.slow
def test_the_background_task_looks_in_a_process_of_its_own(sandbox: Any) -> None:
    home = sandbox(IMAGESEARCH_ENCODER="look")
    home.manage("migrate")
    said = home.manage(
        "shell", "-c",
        "from ingestion import tasks\n"
        "from search import look_alike_pairs\n"
        "from tests.factories import make_image, make_source\n"
        "print(tasks.keep_look_alikes(), end=' ')\n"
        f"fields = {{'perceptual_hash': {BASE}, 'uniformity': 0.1}}\n"
        "[make_image(make_source(), sha256=bytes([n]) * 32, **fields) for n in range(3)]\n"
        "print(tasks.keep_look_alikes(), tasks.keep_look_alikes(), len(look_alike_pairs.known().ids))",
    )  # fmt: skip
    assert "False True False 3" in str(getattr(said, "stdout", said))


def test_the_background_task_is_scheduled() -> None:
    assert tasks._SCHEDULES["keep look-alikes"] == ("ingestion.tasks.keep_look_alikes", 5)


def test_stars_do_not_make_look_alikes_due(anna: Any, source: Any) -> None:
    one = picture(source, "a.jpg")
    picture(source, "b.jpg")
    look_alike_pairs.refresh()
    curation.rate([one.pk], 5, anna)
    kept = look_alike_pairs.known()
    assert kept is not None and not look_alike_pairs.is_behind(kept)
    curation.hide([one.pk], anna)
    assert look_alike_pairs.is_behind(kept)


def test_without_stacks_the_files_of_a_stack_are_pictures_by_themselves(anna: Any, source: Any, settings: Any) -> None:
    raw, jpeg = picture(source, "a.cr2"), picture(source, "a.jpg", BASE ^ 1)
    stacks.stack([raw.pk, jpeg.pk], anna)
    settings.IMAGESEARCH_STACKS = False
    assert found(anna) == [[raw.pk, jpeg.pk]]


def test_a_file_with_a_flipped_bit_raises_nothing(anna: Any, source: Any) -> None:
    picture(source, "a.jpg"), picture(source, "b.jpg")
    look_alike_pairs.refresh()
    whole, chance = look_alike_pairs.path().read_bytes(), random.Random(1)
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        look_alike_pairs.path().write_bytes(bytes(damaged))
        look_alike_pairs.known()
        look_alikes.groups(anna)


@pytest.mark.django_db(transaction=True)
def test_two_people_who_each_keep_the_other_one_hide_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    anna = make_user("anna")
    source = make_source(owner=anna, name="photos")
    a, b = picture(source, "a.jpg"), picture(source, "b.jpg", BASE ^ 1)
    both, listed = threading.Barrier(2), look_alikes._listed

    def together(ids: Any, user: Any) -> Any:
        rows = listed(ids, user)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(2)
        return rows

    def hide(keep: int, other: int) -> None:
        try:
            with contextlib.suppress(BadValue):
                look_alikes.hide_others(keep, [other], anna)
        finally:
            connection.close()

    monkeypatch.setattr(look_alikes, "_listed", together)
    threads = [threading.Thread(target=hide, args=pair) for pair in ((a.pk, b.pk), (b.pk, a.pk))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert Image.objects.filter(hidden=True).count() == 1
