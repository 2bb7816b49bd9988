"""The review queues: which images wait in which, what keeps the columns true, and what a person keeps out."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ingestion.models import Work
from ingestion.tasks import sort_review_queues
from search import curation, filters, queues, review, tagging
from search.errors import BadValue, NotAllowed
from search.models import Action, Counter, Image, ImageTag, Reviewed, Tag
from search.queues import Tally
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db
READ = datetime(2026, 1, 1, tzinfo=UTC)


def read_image(source: Any = None, path: Any = None, **fields: Any) -> Image:
    """An image whose file was read: sharp, of many colours, 640 x 480 unless fields say otherwise."""
    image = make_image(source, path, **{"read_at": READ, "sharpness": 900.0, "uniformity": 0.02, **fields})
    review.settle([image.pk])
    image.refresh_from_db()
    return image


def waits_in(image: Image) -> set[str]:
    image.refresh_from_db()
    return {queue for queue in review.NAMES if getattr(image, queue)}


BOTH = {"unrated", "untagged"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, set()),
        ({"width": 3000, "height": 1000}, set()),  # exactly 3 : 1 is not beyond it
        ({"width": 3001, "height": 1000}, {"wide"}),
        ({"width": 1000, "height": 3001}, {"wide"}),
        ({"width": 128, "height": 128}, set()),
        ({"width": 127, "height": 4000}, {"small", "wide"}),
        ({"sharpness": 25.0}, set()),
        ({"sharpness": 24.9}, {"blurred"}),
        ({"uniformity": 0.969}, set()),
        ({"uniformity": 0.97}, {"plain"}),
        ({"uniformity": 1.0, "sharpness": 0.0}, {"plain"}),  # what shows nothing is not called blurred as well
        ({"width": None, "height": None, "sharpness": None, "uniformity": None}, set()),
    ],
)
def test_what_the_pixels_say(fields: dict[str, Any], expected: set[str]) -> None:
    image = read_image(**fields)
    assert waits_in(image) == expected | BOTH
    for flaw in review.FLAWS:
        found = filters.filtered([filters.term("is", flaw)], None).filter(pk=image.pk).exists()
        assert found == (flaw in expected)


def test_before_a_file_is_read_its_image_waits_nowhere() -> None:
    image = make_image(state="waiting", width=10, height=1000)
    review.settle([image.pk])
    assert waits_in(image) == set()


def test_stars_tags_and_flags_move_images_between_queues_and_undo_moves_them_back() -> None:
    image = read_image()
    rated = curation.rate([image.pk], 4, None)
    assert waits_in(image) == {"untagged"}
    tagged = curation.tag([image.pk], ["sea", "sun"], None)
    assert waits_in(image) == set()
    curation.untag([image.pk], "sea", None)
    assert waits_in(image) == set()
    bare = curation.untag([image.pk], "sun", None)
    assert waits_in(image) == {"untagged"}
    flagged = curation.flag([image.pk], None)
    assert waits_in(image) == {"untagged", "flagged"}
    for action in (flagged, bare):
        curation.undo(action, None)
    assert waits_in(image) == set()
    curation.undo(tagged, None)
    assert waits_in(image) == {"untagged"}
    curation.undo(rated, None)
    assert waits_in(image) == BOTH


def test_merging_and_deleting_tags_keeps_the_queue_true() -> None:
    image = read_image()
    curation.tag([image.pk], "one", None)
    one = Tag.objects.get(key="one")
    curation.tag([read_image().pk], "two", None)
    merged = tagging.merge([one], "two", None)
    assert waits_in(image) == {"unrated"}
    deleted = tagging.delete(Tag.objects.get(key="two"), None)
    assert waits_in(image) == BOTH
    curation.undo(deleted, None)
    assert waits_in(image) == {"unrated"}
    curation.undo(merged, None)
    assert waits_in(image) == {"unrated"}


def test_what_is_kept_leaves_one_queue_for_good_and_comes_back_by_undo() -> None:
    image = read_image(width=9000, height=100, sharpness=3.0)
    assert waits_in(image) == {"wide", "small", "blurred"} | BOTH
    action = curation.keep([image.pk], "blurred", None)
    assert action is not None and action.summary == "Kept 1 picture of the queue “Blurred”"
    review.settle([image.pk])
    review.refresh()
    assert waits_in(image) == {"wide", "small"} | BOTH
    assert filters.filtered([filters.term("is", "kept")], None).get() == image
    assert filters.filtered([filters.term("is", "blurred")], None).get() == image  # it still is
    assert not filters.filtered([filters.term("review", "blurred")], None).exists()
    assert curation.keep([image.pk], "blurred", None) is None
    curation.undo(action, None)
    assert waits_in(image) == {"wide", "small", "blurred"} | BOTH
    assert not Reviewed.objects.exists()


def test_keeping_leaves_alone_what_does_not_wait() -> None:
    sharp, soft = read_image(), read_image(sharpness=2.0)
    action = curation.keep([sharp.pk, soft.pk], "blurred", None)
    assert action is not None and action.count == 1
    Image.objects.filter(pk=sharp.pk).update(sharpness=2.0)
    review.settle([sharp.pk])
    assert "blurred" in waits_in(sharp)


def test_keeping_in_the_queue_of_flagged_ones_takes_the_flag_off() -> None:
    image = read_image()
    curation.flag([image.pk], None)
    action = curation.keep([image.pk], "flagged", None)
    assert action is not None and action.verb == "unflag"
    assert waits_in(image) == BOTH
    with pytest.raises(BadValue, match="no review queue 'nonsense'"):
        curation.keep([image.pk], "nonsense", None)


def test_kept_ones_can_be_put_back() -> None:
    image = read_image(sharpness=3.0)
    for queue in ("blurred", "unrated"):
        curation.keep([image.pk], queue, None)
    assert waits_in(image) == {"untagged"}
    action = curation.review_again([image.pk], None)
    assert action is not None and action.count == 1
    assert waits_in(image) == {"blurred"} | BOTH
    curation.undo(action, None)
    assert waits_in(image) == {"untagged"}
    assert curation.review_again([read_image().pk], None) is None


def test_another_setting_sorts_anew_without_reading_a_file(settings) -> None:
    kept, soft, sharp = (read_image(sharpness=value) for value in (3.0, 5.0, 100.0))
    curation.keep([kept.pk], "blurred", None)
    sort_review_queues()
    assert not review.is_stale() and sort_review_queues() == 0
    settings.IMAGESEARCH_REVIEW_BLUR = 500
    assert review.is_stale()
    told: list[tuple[int, int]] = []
    assert review.refresh(lambda done, of: told.append((done, of)), portion=2) == 1
    assert told[-1][0] == told[-1][1] and len(told) > 1
    assert "blurred" not in waits_in(kept) and "blurred" in waits_in(soft) and "blurred" in waits_in(sharp)
    assert not review.is_stale() and sort_review_queues() == 0
    settings.IMAGESEARCH_REVIEW_BLUR = 4
    assert sort_review_queues() == 2
    assert "blurred" not in waits_in(soft)
    assert not Work.objects.exists()


def test_a_stop_in_the_middle_of_sorting_is_no_end(monkeypatch) -> None:
    images = [read_image() for _ in range(3)]
    Image.objects.update(unrated=False)

    def stopping(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        review.refresh(stopping, portion=images[0].pk + 1)
    assert review.is_stale() and not Counter.objects.filter(name="review settings").exists()
    review.refresh()
    assert [waits_in(image) for image in images] == [BOTH] * 3


def test_counters_see_what_the_person_may_change_and_stop_counting() -> None:
    owner, viewer, stranger = make_user(), make_user(), make_user()
    source = make_source(owner=owner, viewer=viewer)
    images = [read_image(source) for _ in range(4)]
    curation.hide([images[0].pk], None)
    Image.objects.filter(pk=images[1].pk).update(state="missing")
    assert review.count("unrated", owner) == Tally(2) == review.count("unrated", None)
    assert review.count("unrated", owner, 1) == Tally(1, capped=True)
    assert review.count("unrated", viewer) == Tally(0) == review.count("unrated", stranger)
    inactive = make_user(is_active=False)
    assert review.count("unrated", inactive) == Tally(0)
    assert review.count("unrated", make_user(staff=True)) == Tally(2)
    found = filters.filtered([filters.term("review", "unrated")], owner)
    assert set(found) == set(images[2:]) == set(review.waiting("unrated", owner))
    assert not filters.filtered([filters.term("review", "unrated")], viewer).exists()


def test_who_may_not_change_an_image_can_neither_keep_nor_flag_it() -> None:
    viewer = make_user()
    image = read_image(make_source(viewer=viewer))
    for verb in (
        lambda: curation.keep([image.pk], "unrated", viewer),
        lambda: curation.flag([image.pk], viewer),
        lambda: curation.review_again([image.pk], viewer),
    ):
        with pytest.raises(NotAllowed):
            verb()
    assert waits_in(image) == BOTH and not Action.objects.exists()


def test_every_counter_is_one_query(django_assert_num_queries) -> None:
    owner = make_user()
    for _ in range(3):
        read_image(make_source(owner=owner))
    for queue in queues.all_queues():
        if queue.name in review.NAMES:
            with django_assert_num_queries(1):
                queue.counter(owner)


def test_the_counters_use_the_index_of_their_queue() -> None:
    """Neither database goes through all images, nor, on SQLite, through all images of a source."""
    from django.db import connection

    owner = make_user()
    read_image(make_source(owner=owner))
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL chooses by the statistics of its rows; see benchmarks/review_at_size.py")
    for user in (None, owner):
        for queue in review.NAMES:
            rows = review.waiting(queue, user)
            for asked in (rows.order_by()[:10].values("pk"), rows.newest_first()[:2].values("pk")):
                plan = asked.explain()
                assert f"image_review_{queue}" in plan, plan
                assert "TEMP B-TREE FOR ORDER" not in plan, plan


def test_the_command_counts_lists_and_sorts(capsys) -> None:
    owner = make_user("anna")
    soft = read_image(make_source("/photos", owner=owner), "soft\n.jpg", sharpness=2.0)
    read_image(sharpness=2.0)
    call_command("review")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["blurred", "2", "Blurred"] for line in lines)
    call_command("review", "--json", "--user", "anna")
    assert '{"queue": "blurred", "label": "Blurred", "count": 1, "more": false}' in capsys.readouterr().out
    call_command("review", "blurred", "--user", "anna")
    assert capsys.readouterr().out == f"{soft.pk}\t/photos/soft\\n.jpg\n"
    call_command("review", "blurred", "--user", "anna", "--json")
    assert f'"id": {soft.pk}' in capsys.readouterr().out
    call_command("review", "plain")
    assert capsys.readouterr().out == "Nothing waits in this queue.\n"
    Image.objects.update(blurred=False)
    call_command("review", "--refresh")
    assert capsys.readouterr().out == "2 pictures changed queues.\n"


# --- any sequence of verbs --------------------------------------------------------------------------

verbs = st.one_of(
    st.tuples(st.just("tag"), st.sampled_from(["sea", "sun"])),
    st.tuples(st.just("untag"), st.sampled_from(["sea", "sun"])),
    st.tuples(st.just("rate"), st.integers(0, 2)),
    st.tuples(st.just("keep"), st.sampled_from(review.NAMES)),
    *(st.tuples(st.just(name), st.none()) for name in ("flag", "unflag", "review_again", "hide", "remove", "restore")),
    st.tuples(st.just("undo"), st.integers(0, 20)),
)
steps_taken = st.lists(st.tuples(verbs, st.lists(st.integers(0, 3), min_size=1, unique=True)), max_size=14)


def stand(images: list[Image]) -> list[set[str]]:
    """What the columns of these images say."""
    rows = Image.objects.in_bulk([image.pk for image in images])
    return [{queue for queue in review.NAMES if getattr(rows[image.pk], queue)} for image in images]


def as_computed(images: list[Image]) -> list[set[str]]:
    """What they should say, made anew."""
    rows = Image.objects.in_bulk([image.pk for image in images])
    tagged = set(ImageTag.objects.values_list("image_id", flat=True))
    kept = set(Reviewed.objects.values_list("image_id", "queue"))
    made = []
    for image in (rows[one.pk] for one in images):
        longer, shorter = max(image.width or 0, image.height or 0), min(image.width or 0, image.height or 0)
        said = {
            "wide": longer > 3 * shorter,
            "small": shorter < 128,
            "blurred": (image.sharpness or 0) < 25 and (image.uniformity or 0) < 0.97,
            "plain": (image.uniformity or 0) >= 0.97,
            "unrated": image.rating == 0,
            "untagged": image.pk not in tagged,
        }
        waits = {queue for queue, so in said.items() if so and (image.pk, queue) not in kept}
        made.append(waits | ({"flagged"} if image.flagged else set()))
    return made


@hypothesis_settings(
    deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps_taken)
def test_after_any_sequence_of_verbs_and_undos_the_columns_are_what_they_should_be(taken) -> None:
    for model in (Action, Reviewed, ImageTag, Tag, Image):
        model.objects.all().delete()
    source = make_source()
    images = [
        read_image(source),
        read_image(source, width=5000, height=100, sharpness=1.0),
        read_image(source, uniformity=1.0, rating=1),
        read_image(source, sharpness=20.0, state="missing"),
    ]
    assert stand(images) == as_computed(images)
    actions: list[Action] = []
    for (name, value), which in taken:
        if name == "undo":
            if not actions:
                continue
            action = curation.undo(actions[value % len(actions)], None)
        else:
            ids = [images[n].pk for n in which]
            arguments = [ids] if value is None else [ids, value]
            action = getattr(curation, name)(*arguments, None)
        if action is not None:
            actions.append(action)
        assert stand(images) == as_computed(images)
    for action in reversed(actions):
        with contextlib.suppress(BadValue):
            curation.undo(action, None)
    assert stand(images) == as_computed(images)


@pytest.mark.django_db(transaction=True)
def test_a_worker_sorts_what_it_reads(tmp_path) -> None:
    """Real files through the real worker: a strip, an icon, a blurred one, a blank one, a good one."""
    import numpy as np
    from PIL import Image as PilImage
    from PIL import ImageFilter

    from ingestion.register import crawl
    from ingestion.roots import source_for
    from ingestion.worker import Worker

    noise = PilImage.fromarray(np.random.default_rng(5).integers(0, 255, (400, 600, 3), dtype=np.uint8))
    noise.save(tmp_path / "good.png")
    noise.resize((600, 100)).save(tmp_path / "strip.png")
    noise.resize((90, 60)).save(tmp_path / "icon.png")
    colours = np.random.default_rng(6).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    squares = PilImage.fromarray(colours).resize((600, 400), PilImage.Resampling.NEAREST)
    squares.filter(ImageFilter.GaussianBlur(12)).save(tmp_path / "soft.png")
    PilImage.new("RGB", (600, 400), "navy").save(tmp_path / "blank.png")
    source, _ = source_for(tmp_path)
    crawl(source)
    Worker().run()
    found = {image.name: waits_in(image) - BOTH for image in Image.objects.all()}
    assert found == {
        "good.png": set(), "strip.png": {"wide", "small"}, "icon.png": {"small"}, "soft.png": {"blurred"},
        "blank.png": {"plain"},
    }  # fmt: skip
    assert all(waits_in(image) >= BOTH for image in Image.objects.all())
    assert Image.objects.filter(read_at__lte=timezone.now()).count() == 5
