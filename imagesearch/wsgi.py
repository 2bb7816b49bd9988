"""WSGI entry point, served by gunicorn (see `manage.py start`)."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")

application = get_wsgi_application()

from search.warmup import keep_warm  # noqa: E402 - only once the apps are loaded

keep_warm()
