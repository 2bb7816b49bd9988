from __future__ import annotations

from django.urls import URLPattern, path

from ingestion import space_views, views
from ingestion.health import health, ready

urlpatterns: list[URLPattern] = [
    path("progress/", views.progress_page, name="progress"),
    path("progress/pause/", views.work_pause, name="work_pause"),
    path("progress/resume/", views.work_resume, name="work_resume"),
    path("problems/", views.problems, name="problems"),
    path("problems/retry/", views.problem_retry, name="problem_retry"),
    path("spaces/", space_views.spaces_page, name="spaces"),
    path("spaces/add/", space_views.space_add, name="space_add"),
    path("spaces/rollback/", space_views.space_rollback, name="space_rollback"),
    path("spaces/compare/", space_views.space_compare, name="space_compare"),
    path("spaces/<slug:name>/remove/", space_views.space_remove, name="space_remove"),
    path("spaces/<slug:name>/<slug:verb>/", space_views.space_verb, name="space_verb"),
    path("health", health, name="health"),
    path("health/ready", ready, name="ready"),
]
