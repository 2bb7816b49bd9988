from django.apps import AppConfig
from django.db.models.signals import post_migrate


def _make_schedules(using: str = "default", **_: object) -> None:
    from django.db import connections

    from ingestion.tasks import ensure_schedules

    if "django_q_schedule" in connections[using].introspection.table_names():
        ensure_schedules()


class IngestionConfig(AppConfig):
    name = "ingestion"
    verbose_name = "Ingestion"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.core.checks import register

        from ingestion import backup_schedule, watchstate
        from ingestion.chores import register_chores
        from ingestion.problems import register_queue_of_problems
        from ingestion.progress import report
        from ingestion.switchover import check_restore, settle
        from search.checks import INSTALLATION
        from search.panels import register_health, register_progress

        register_progress(report)
        register_chores()
        register_queue_of_problems()
        register_health("backup", backup_schedule.health)
        register_health("watching", watchstate.health)
        register(check_restore, INSTALLATION)
        post_migrate.connect(_make_schedules, dispatch_uid="ingestion.schedules", sender=self)
        settle()
