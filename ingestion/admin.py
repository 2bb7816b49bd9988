"""The work ledger, the crawls and what spaces are verified to hold, in the admin; changing is up to the ledger."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from ingestion import checking, ledger, tally
from ingestion.models import Crawl, SeenFile, StageCount, StageTick, Watch, Work
from search import panels
from search.admin.base import OfAnImage, ReadOnlyAdmin, confirmed
from search.models import EmbeddingSpace, Source
from search.wording import agreeing, counted

MOST_AT_ONCE = 20_000
"""More failures than that are tried again in the background."""


class StageFilter(admin.SimpleListFilter):
    """The stages that are counted; no look through the ledger for those that occur."""

    title = "stage"
    parameter_name = "stage"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted(tally.counts())]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(stage=self.value()) if self.value() else queryset


class ClaimedFilter(admin.SimpleListFilter):
    title = "in a worker's hands"
    parameter_name = "claimed"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "now"), ("0", "not now")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Work]) -> QuerySet[Work]:
        if self.value() == "1":
            return queryset.filter(lease_owner__gt="", lease_until__gt=timezone.now())
        return queryset.filter(lease_owner="") if self.value() == "0" else queryset


@admin.register(Work)
class WorkAdmin(OfAnImage, ReadOnlyAdmin):
    list_display = ("picture", "image_id", "stage", "state", "reason", "failed_at", "attempts", "claimed_by")
    list_display_links = ("image_id",)
    list_filter = ("state", StageFilter, ClaimedFilter, "failed_at")
    search_fields = ("=image__id",)
    search_help_text = "The number of an image, or how the reason of a failure begins."
    ordering = ("state", "stage", "-newest", "-image")  # as the index has it: failures first, then what is next
    sortable_by = ()
    raw_id_fields = ("image",)
    actions = ("try_again", "try_all_again")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Work], search_term: str
    ) -> tuple[QuerySet[Work], bool]:
        """Only failures have a reason, and those are few beside what waits."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if term.isdecimal():
            return queryset.filter(image=int(term) if len(term) < 19 else 0), False
        return queryset.filter(state=Work.State.FAILED, reason__icontains=term), False

    @admin.display(description="In the hands of")
    def claimed_by(self, row: Work) -> str:
        if not row.lease_owner or row.lease_until is None:
            return ""
        if row.lease_until < timezone.now():
            return f"{row.lease_owner} (ended)"
        return f"{row.lease_owner} until {timezone.localtime(row.lease_until):%H:%M:%S}"

    @admin.action(description="Try failed work again", permissions=["verb"])
    def try_again(self, request: HttpRequest, rows: QuerySet[Work]) -> None:
        failed = rows.filter(state=Work.State.FAILED)
        if failed.order_by()[: MOST_AT_ONCE + 1].count() > MOST_AT_ONCE:
            said = f"That is more than {counted(MOST_AT_ONCE, 'step')}: use “Try everything that failed again”."
            self.message_user(request, said, messages.ERROR)
            return
        by_stage: dict[str, list[int]] = {}
        for stage, image_id in failed.values_list("stage", "image_id"):
            by_stage.setdefault(stage, []).append(image_id)
        number = sum(ledger.retry(ids, stage=stage) for stage, ids in sorted(by_stage.items()))
        self._waits_again(request, number)

    @admin.action(description="Try everything that failed again, whatever is ticked", permissions=["verb"])
    def try_all_again(self, request: HttpRequest, rows: QuerySet[Work]) -> HttpResponse | None:
        number = sum(failed for _, _, failed in tally.counts().values())
        question = f"Try all work that failed again? {counted(number, 'step')} failed, on every page of every list."
        if page := confirmed(self, request, rows.none(), question=question, button="Try all of it again"):
            return page
        if number > MOST_AT_ONCE:
            from django_q.tasks import async_task

            async_task("ingestion.tasks.retry_failed")
            self.message_user(request, f"{counted(number, 'step')}: the background tasks let them wait again now.")
        else:
            self._waits_again(request, ledger.retry())
        return None

    def _waits_again(self, request: HttpRequest, number: int) -> None:
        if number:
            said = f"{counted(number, 'step')} {agreeing(number, 'waits', 'wait')} again."
            self.message_user(request, said, messages.SUCCESS)
        else:
            self.message_user(request, "None of these had failed.", messages.INFO)


@admin.register(StageCount)
class StageCountAdmin(ReadOnlyAdmin):
    list_display = ("stage", "waiting", "done", "failed")
    search_fields = ("stage",)
    actions = ("count_again",)

    @admin.action(description="Count all stages anew", permissions=["verb"])
    def count_again(self, request: HttpRequest, rows: QuerySet[StageCount]) -> None:
        wrong = ledger.recount()
        said = f"{counted(wrong, 'stage')} {agreeing(wrong, 'was', 'were')} counted wrong."
        self.message_user(request, said if wrong else "Every counter was right.")


@admin.register(StageTick)
class StageTickAdmin(ReadOnlyAdmin):
    list_display = ("started_at", "stage", "done")
    list_filter = ("started_at", StageFilter)
    search_fields = ("=stage",)
    search_help_text = "A whole stage."
    ordering = ("-id",)
    sortable_by = ()


@admin.register(SeenFile)
class SeenFileAdmin(ReadOnlyAdmin):
    list_display = ("path_text", "source", "why", "kind", "size")
    list_select_related = ("source",)
    list_filter = ("why", "source")
    search_fields = ("=kind",)
    search_help_text = "A whole kind, as the list shows it."
    ordering = ("-id",)
    sortable_by = ()
    fields = ("source", "path_text", "why", "kind", "size", "mtime_ns")

    @admin.display(description="Path")
    def path_text(self, seen: SeenFile) -> str:
        return seen.path_text


@admin.register(Crawl)
class CrawlAdmin(ReadOnlyAdmin):
    list_display = ("started_at", "source", "parts", "finished_at", "state", "outcome", "message")
    list_select_related = ("source",)
    list_filter = ("state", "started_at", "source")
    search_fields = ("source__name",)
    ordering = ("-id",)
    sortable_by = ()
    fields = ("source", "state", "started_at", "finished_at", "report", "message", "owner", "beat_at")

    @admin.display(description="Found")
    def outcome(self, crawl: Crawl) -> str:
        """The counts that are not 0, in a line."""
        return ", ".join(f"{number:,} {_words(name)}" for name, number in _counts(crawl) if number)

    @admin.display(description="Report")
    def report(self, crawl: Crawl) -> SafeString | str:
        rows = format_html_join(
            "", "<tr><th>{}</th><td>{}</td></tr>", ((_words(a), f"{b:,}") for a, b in _counts(crawl))
        )
        return format_html("<table>{}</table>", rows) if rows else ""


@admin.register(Watch)
class WatchAdmin(ReadOnlyAdmin):
    list_display = ("source", "watched", "why", "folders", "beat_at")
    list_select_related = ("source",)
    list_filter = ("watched",)
    search_fields = ("source__name", "why")
    ordering = ("source",)


def _counts(crawl: Crawl) -> list[tuple[str, int]]:
    return [(name, number) for name, number in crawl.counts.items() if isinstance(number, int)]


def _words(name: str) -> str:
    return name.replace("_", " ")


def crawl_now(model_admin: Any, request: HttpRequest, rows: QuerySet[Source]) -> None:
    """Let the background tasks look for new and changed files."""
    from django_q.tasks import async_task

    some = list(rows)
    for source in some:
        async_task("ingestion.tasks.crawl_source", source.pk)
    said = f"{counted(len(some), 'source')}: the background tasks look for new, changed and missing files now."
    model_admin.message_user(request, said, messages.SUCCESS)


def verify_now(model_admin: Any, request: HttpRequest, rows: QuerySet[EmbeddingSpace]) -> None:
    """Let the background tasks verify these spaces."""
    number = checking.ask(list(rows.values_list("pk", flat=True)))
    said = f"{counted(number, 'space')}: the background tasks read every row now. The list says what they found."
    model_admin.message_user(request, said, messages.SUCCESS)


panels.register_admin_action(
    panels.AdminAction("crawl_now", "Look for new and changed files now", crawl_now, "search.source")
)
panels.register_admin_action(panels.AdminAction("verify_now", "Verify now", verify_now, "search.embeddingspace"))
