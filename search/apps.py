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
        from search.changes import note_changes_of_names
        from search.copies import register_copies_queue
        from search.folding import add_sqlite_function
        from search.look_alikes import register_look_alikes_queue
        from search.naming import register_names
        from search.review import register_queues
        from search.sessions import follow_sign_ins

        connection_created.connect(add_sqlite_function, dispatch_uid="search.folding")
        register_builtin_filters()
        register_names()
        register_queues()
        register_copies_queue()
        register_look_alikes_queue()
        note_changes_of_access()
        note_changes_of_names()
        follow_sign_ins()
