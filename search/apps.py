from django.apps import AppConfig
from django.db.backends.signals import connection_created


class SearchConfig(AppConfig):
    name = "search"
    verbose_name = "Search"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from search import checks  # noqa: F401  importing them registers them
        from search.access import note_changes_of_access
        from search.builtin_filters import register_builtin_filters
        from search.copies import register_copies_queue
        from search.folding import add_sqlite_function
        from search.review import register_queues
        from search.sessions import follow_sign_ins

        connection_created.connect(add_sqlite_function, dispatch_uid="search.folding")
        register_builtin_filters()
        register_queues()
        register_copies_queue()
        note_changes_of_access()
        follow_sign_ins()
