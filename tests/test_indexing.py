"""Making a space's approximate index, and searching with it while pictures come, change, hide and go."""

from __future__ import annotations

import json
import time
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from search import bitmaps, changes, curation, embeddings, highwater, index_failures, indexing
from search.bitmaps import get_library
from search.errors import IndexNotMade, StoreFault
from search.models import Change, EmbeddingSpace, Image
from search.query import parse
from search.retrieval import find, reset_rankings
from search.spaces import look_space
from search.vectors import faiss_index, get_store, index_folder, local
from search.verification import verify
from tests import patterns
from tests.factories import make_image, make_source, make_user
from tests.test_faiss_index import clustered
from tests.test_kill import shell
from tests.test_retrieval import embed, painted

pytestmark = pytest.mark.django_db
ROWS = 600


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> EmbeddingSpace:
    monkeypatch.setattr(local, "EXACT_UP_TO", 50)
    monkeypatch.setattr(indexing, "LEAST_ROWS", 100)
    made = EmbeddingSpace.objects.create(
        name="other", encoder="local-dir:/nowhere", key="key", label="Other", dim=64, text=False
    )
    source = make_source(owner=make_user("anna"))
    images = [make_image(source, f"{number}.jpg") for number in range(ROWS)]
    embeddings.record(made, np.array([image.pk for image in images]), clustered(ROWS, 1))
    return made


def nearest(space: EmbeddingSpace, query: np.ndarray, k: int = 5) -> list[int]:
    library = get_library()
    among = library.visible(None) & library.embedded(space.pk)[: library.size]
    return get_store(space).search(query, k, among).ids[0].tolist()


def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows whenever the index is asked."""
    calls: list[int] = []
    real = faiss_index.FaissIndex.candidates

    def counting(self: Any, *given: Any, **more: Any) -> Any:
        calls.append(1)
        return real(self, *given, **more)

    monkeypatch.setattr(faiss_index.FaissIndex, "candidates", counting)
    return calls


def test_searches_use_it_and_find_what_an_exact_search_finds(
    space: EmbeddingSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = clustered(20, 5)
    before = [nearest(space, query) for query in queries]
    about = indexing.make(space, recall=1.0)
    calls = asked(monkeypatch)
    assert about.rows == ROWS and [nearest(space, query) for query in queries] == before and len(calls) == 20
    state = indexing.state(space)
    assert (state.rows, state.besides, state.fault) == (ROWS, 0, "") and state.recall == about.recall


def test_new_changed_hidden_and_forgotten_pictures_count_with_the_next_search(
    space: EmbeddingSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexing.make(space, recall=1.0)
    query = clustered(1, 9)[0]
    ids = list(Image.objects.order_by("pk").values_list("pk", flat=True))
    nearest(space, query)
    new = make_image(Image.objects.get(pk=ids[0]).source, "new.jpg")
    calls = asked(monkeypatch)
    embeddings.record(space, np.array([new.pk]), query[None])
    changes.record(Change.Kind.IMAGES, [new.pk])
    assert nearest(space, query, 1) == [new.pk]
    embeddings.record(space, np.array([ids[7]]), query[None])
    assert nearest(space, query, 2) == [ids[7], new.pk] and indexing.state(space).besides == 2
    curation.hide([ids[7]], make_user("root", staff=True))
    assert nearest(space, query, 1) == [new.pk]
    embeddings.forget(space, [new.pk])
    assert new.pk not in nearest(space, query, 50) and ids[7] not in nearest(space, query, 50)
    assert len(calls) >= 4
    bitmaps.reset_library()  # another process, which followed nothing so far
    assert ids[7] in get_library().written_since(space.pk, indexing.get_store(space).index().about.last).tolist()  # type: ignore[union-attr]


def test_what_is_written_while_it_is_made_is_scored_beside_it(
    space: EmbeddingSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = clustered(1, 13)[0]
    ids = list(Image.objects.order_by("pk").values_list("pk", flat=True))
    written = []

    def meanwhile(share: float) -> None:
        if share > 0.4 and not written:
            written.append(ids[3])
            embeddings.record(space, np.array([ids[3]]), query[None])

    indexing.make(space, go_on=meanwhile)
    assert nearest(space, query, 1) == [ids[3]] == written


def test_a_search_costs_no_more_queries_with_it(space: EmbeddingSpace) -> None:
    query = clustered(1, 11)[0]

    def queries() -> int:
        nearest(space, query)
        with CaptureQueriesContext(
            connection,
        ) as seen:
            nearest(space, query)
        return len(seen)

    without = queries()
    indexing.make(space)
    assert queries() == without


def test_one_at_a_time_and_not_for_a_few(space: EmbeddingSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(share: float) -> None:
        with pytest.raises(IndexNotMade, match="being made already"):
            indexing.make(space)

    indexing.make(space, go_on=again)
    monkeypatch.setattr(indexing, "LEAST_ROWS", ROWS + 1)
    with pytest.raises(IndexNotMade, match="every search is exact and needs no index"):
        indexing.make(space)


def test_the_command_makes_tells_and_drops_it(space: EmbeddingSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.nice", lambda by: 0)

    def said(*words: str) -> str:
        out = StringIO()
        call_command("spaces", *words, stdout=out, stderr=StringIO())
        return out.getvalue()

    assert "600 vectors indexed in" in said("index", "other")
    listed = json.loads(said("--json"))
    assert [one["index"]["rows"] for one in listed["spaces"] if one["name"] == "other"] == [ROWS]
    assert "index of 600 vectors, recall@20" in said()
    assert "is deleted" in said("index", "other", "--drop") and "has no index" in said("index", "other", "--drop")
    assert json.loads(said("--json"))["spaces"][0]["index"] is None
    with pytest.raises(CommandError, match="it accepts shares"):
        said("index", "other", "--recall", "7")
    with pytest.raises(CommandError, match="needs no index"):
        monkeypatch.setattr(indexing, "LEAST_ROWS", ROWS + 1)
        said("index", "other")


def test_a_broken_one_is_said_where_spaces_are_listed(space: EmbeddingSpace) -> None:
    indexing.make(space)
    where = index_folder.current(get_store(space).file.folder)
    assert where is not None
    (Path(where) / "lists.npy").write_bytes(b"")
    get_store(space)._index_seen = None
    out = StringIO()
    call_command("spaces", stdout=out)
    assert "is damaged or not all there. `manage.py spaces index NAME`" in out.getvalue()


def test_a_space_that_is_removed_or_restored_meanwhile_gets_no_index(space: EmbeddingSpace) -> None:
    folder = get_store(space).file.folder

    def restored(share: float) -> None:
        copy = folder / "copy.npy"
        copy.write_bytes((folder / "vectors.npy").read_bytes())
        copy.replace(folder / "vectors.npy")

    with pytest.raises(IndexNotMade, match="removed or restored meanwhile"):
        indexing.make(space, go_on=restored)
    assert index_folder.current(folder) is None and not list((folder / "index").iterdir())

    def removed(share: float) -> None:
        EmbeddingSpace.objects.filter(pk=space.pk).update(removing=True)

    with pytest.raises(IndexNotMade, match="removed or restored meanwhile"):
        indexing.make(space, go_on=removed)
    (folder / "vectors.npy").unlink()
    with pytest.raises(StoreFault, match="is not there"):
        indexing.make(space)


def test_a_file_without_its_rows_is_a_sentence(space: EmbeddingSpace) -> None:
    file = get_store(space).file
    file.zero(np.arange(file.capacity()))
    with pytest.raises(IndexNotMade, match="says what is wrong"):
        indexing.make(space)


def test_the_space_that_knows_few_words_is_indexed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "LEAST_ROWS", 100)
    look = look_space()
    source = make_source(owner=make_user("anna"))
    ids = np.array([make_image(source, f"{number}.jpg").pk for number in range(200)])
    chance = np.random.default_rng(1)
    rows = np.abs(chance.standard_normal((200, look.dim))).astype(np.float32)
    embeddings.record(look, ids, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    assert indexing.make(look).rows == 200


def test_mending_the_ids_of_an_older_database_leaves_no_index(space: EmbeddingSpace) -> None:
    indexing.make(space)
    highwater.path().parent.mkdir(parents=True, exist_ok=True)
    highwater.path().write_text("damaged")
    assert highwater.mend() and index_folder.current(get_store(space).file.folder) is None


def test_a_folder_that_cannot_be_written_is_a_sentence(space: EmbeddingSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("search.indexing.os.open", refused)
    with pytest.raises(StoreFault, match="who owns the data"):
        indexing.make(space)


def test_it_is_due_when_there_is_none_and_when_too_much_was_written_since(
    space: EmbeddingSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not indexing.due(space)  # exact searches are quick
    monkeypatch.setattr(indexing, "KEPT_FROM", 500)
    monkeypatch.setattr(indexing, "MOST_BESIDES", 20)
    assert indexing.due(space)
    indexing.make(space)
    assert not indexing.due(space)
    ids = np.array(Image.objects.order_by("pk").values_list("pk", flat=True))
    embeddings.forget(space, ids[:40])
    assert not indexing.due(space)
    embeddings.record(space, ids[100:140], clustered(40, 3))
    assert indexing.due(space)
    indexing.make(space)
    assert not indexing.due(space)
    where = index_folder.current(get_store(space).file.folder)
    assert where is not None
    (where / "about.json").unlink()
    get_store(space)._index_seen = None
    assert indexing.due(space)


FILL = """
import numpy as np
from ingestion import ledger
from search import embeddings, indexing
from search.models import Image, Source
from search.query import parse
from search.retrieval import find, reset_rankings
from search.spaces import look_space
from tests.factories import make_image, make_source
first = make_image(make_source(name="many"), "first.jpg")
first.pk = None
made = []
for number in range(indexing.LEAST_ROWS):
    made.append(Image(source=first.source, path=b"%d.jpg" % number, path_digest=b"%016d" % number, directory=b"",
                      name=f"{number}.jpg", size=1, mtime_ns=1, shown_at=first.shown_at))
Image.objects.bulk_create(made, batch_size=5_000)
space = look_space()
ids = np.array(Image.objects.order_by("pk").values_list("pk", flat=True))
rows = np.abs(np.random.default_rng(1).standard_normal((len(ids), space.dim))).astype(np.float32)
embeddings.record(space, ids, rows / np.linalg.norm(rows, axis=1, keepdims=True))
ledger.recount()
print("filled")
"""
KEEP = """
from ingestion import tasks
from search import indexing
from search.query import parse
from search.retrieval import find, reset_rankings
from search.spaces import look_space
print(tasks.keep_indexes(), end=" ")
indexing.KEPT_FROM = indexing.LEAST_ROWS
print(tasks.keep_indexes(), tasks.keep_indexes(), indexing.state(look_space()).rows)
"""


@pytest.mark.slow
def test_the_background_task_makes_it_in_a_process_of_its_own(sandbox: Any) -> None:
    home = sandbox(IMAGESEARCH_ENCODER="look")
    shell(home, FILL)
    assert shell(home, KEEP).strip().splitlines()[-1] == f"[] ['look'] [] {indexing.LEAST_ROWS + 1}"
    shell(home, "from search import indexing; from search.spaces import look_space; print(indexing.drop(look_space()))")
    folder = home.data / "spaces" / "look"
    assert not (folder / "index").exists()
    (folder / "index").write_bytes(b"")  # nothing can be written where it should lie
    assert shell(home, KEEP).strip().splitlines()[-1] == "[] [] [] 0"
    failure = index_failures.read(folder)
    assert failure is not None and failure.tries == 1 and str(folder) in failure.why
    (folder / "index").unlink()
    assert shell(home, KEEP).strip().splitlines()[-1] == "[] [] [] 0"
    a_day_older(folder)
    assert shell(home, KEEP).strip().splitlines()[-1] == f"[] ['look'] [] {indexing.LEAST_ROWS + 1}"
    assert index_failures.read(folder) is None


def a_day_older(folder: Path) -> None:
    """As if the last failure had been a day earlier."""
    file = folder / "index-failed.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "at": time.time() - 24 * 3600 - 1}))


def test_what_cannot_be_made_is_tried_again_after_pauses_that_grow_and_is_said(sandbox: Any, tmp_path: Path) -> None:
    home = sandbox(IMAGESEARCH_ENCODER="look")
    home.manage("index", patterns.folder_of(tmp_path / "photos", 3))
    few = (
        "from search import indexing; indexing.KEPT_FROM = 1\nfrom ingestion import tasks\nprint(tasks.keep_indexes())"
    )
    folder = home.data / "spaces" / "look"
    for tries in (1, 2, 3):
        for _ in range(2):  # the second call finds the pause
            assert shell(home, few).strip().splitlines()[-1] == "[]"
        failure = index_failures.read(folder)
        assert failure is not None and failure.tries == tries
        assert failure.why == "look holds 3 vectors; up to 20,000 every search is exact and needs no index."
        assert failure.again_at - failure.at == index_failures.FIRST_SECONDS * 2 ** (tries - 1)
        (said,) = (one["index"] for one in home.report("spaces")["spaces"])
        assert (said["tries"], said["failed"], said["rows"]) == (tries, failure.why, 0)
        a_day_older(folder)
    told = home.manage("spaces").stdout
    assert "making an index failed 3 times, tried again from" in told and failure.why in told
    assert "has no index" in home.manage("spaces", "index", "look", "--drop").stdout
    assert index_failures.read(folder) is None


def test_the_pause_before_another_try_is_never_longer_than_a_day_and_a_broken_note_counts_as_none(
    tmp_path: Path,
) -> None:
    for _ in range(40):
        failure = index_failures.note(tmp_path, "No room.")
    assert failure.tries == 40 and failure.again_at - failure.at == index_failures.LONGEST_SECONDS
    (tmp_path / "index-failed.json").write_text('{"tries": "many"')
    assert index_failures.read(tmp_path) is None
    assert index_failures.note(tmp_path, "No room.").tries == 1
    with pytest.raises(OSError):
        index_failures.note(tmp_path / "gone", "No room.")


def test_queries_find_the_same_with_it_and_without(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(local, "EXACT_UP_TO", 10)
    monkeypatch.setattr(indexing, "LEAST_ROWS", 100)
    settings.IMAGESEARCH_MAX_RESULTS = 40
    source, look = make_source(owner=make_user("anna")), look_space()
    colours = ["red", "green", "blue", "yellow", "orange", "purple", "white", "black", "brown", "pink"]
    pictures = {
        make_image(source, f"{colour}{number}.jpg", rating=number % 6): painted(colour, f"rgb({number * 10},90,60)")
        for number in range(24)
        for colour in colours
    }
    embed(pictures)
    some = list(pictures)[7]

    def answers() -> list[list[tuple[int, float | None]]]:
        reset_rankings()
        texts = ["red", "blue -green", "yellow rating:>=3", f"like:{some.pk}"]
        return [[(hit.id, hit.score) for hit in find(parse(text), None, limit=40).hits] for text in texts]

    before = answers()
    assert all(before)
    indexing.make(look, recall=1.0)
    calls = asked(monkeypatch)
    after = answers()
    assert after == before and len(calls) >= 4


def test_verify_deletes_one_that_was_made_of_other_vectors_or_is_broken(space: EmbeddingSpace) -> None:
    folder = get_store(space).file.folder
    assert indexing.check(space) == ""
    indexing.make(space)
    embeddings.record(space, np.array(Image.objects.values_list("pk", flat=True)[:300]), clustered(300, 33))
    assert verify(sample=0)[-1].notes == [] and index_folder.current(folder) is not None
    about = json.loads(((index_folder.current(folder) or folder) / "about.json").read_text())
    where = index_folder.current(folder)
    assert where is not None
    # As after a hand had put another installation's files there: nothing says that these rows were written since.
    (where / "about.json").write_text(json.dumps({**about, "last": 10**9}))
    get_store(space)._index_seen = None
    verdict = verify(sample=0)[-1]
    assert verdict.ok and "was not made of these vectors and was deleted" in verdict.notes[0]
    assert index_folder.current(folder) is None
    indexing.make(space)
    ((index_folder.current(folder) or folder) / "lists.faiss").write_bytes(b"")
    get_store(space)._index_seen = None
    assert "was broken and was deleted" in verify(sample=0)[-1].notes[0] and verify(sample=0)[-1].notes == []


def test_verify_leaves_one_that_is_being_made_anew_and_rows_written_by_another_process(
    space: EmbeddingSpace,
) -> None:
    folder = get_store(space).file.folder
    indexing.make(space)
    indexing.state(space)  # what this process knows of the rows is from now
    embeddings.record(space, np.array(Image.objects.values_list("pk", flat=True)[:300]), clustered(300, 35))
    assert indexing.check(space) == "" and index_folder.current(folder) is not None
    said = []

    def meanwhile(share: float) -> None:
        ((index_folder.current(folder) or folder) / "about.json").write_text("{}")
        get_store(space)._index_seen = None
        said.append(indexing.check(space))

    indexing.make(space, go_on=meanwhile)
    assert "was broken, and could not be deleted" in said[0] and indexing.check(space) == ""
