"""Settings: read from the environment or `.env`, each validated with a sentence (see docs/settings.md)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from imagesearch import environment

BASE_DIR = Path(__file__).resolve().parent.parent
ENV = environment.load(BASE_DIR)

# --- where things lie -------------------------------------------------------------------------------
IMAGESEARCH_DATA: Path = ENV.data
IMAGESEARCH_SPACES: Path = ENV.spaces
IMAGESEARCH_THUMBNAILS: Path = ENV.thumbnails
IMAGESEARCH_MODELS: Path = ENV.models
IMAGESEARCH_LOGS: Path = ENV.logs
IMAGESEARCH_UPLOADS: Path = ENV.data / "uploads"

# --- Django ------------------------------------------------------------------------------------------
SECRET_KEY = ENV.secret_key
DEBUG = ENV.debug
ALLOWED_HOSTS = ENV.allowed_hosts
CSRF_TRUSTED_ORIGINS = ENV.trusted_origins

INSTALLED_APPS = [
    "ingestion",
    "faces",
    "search",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "csp",
    "django_htmx",
    "django_q",
    "axes",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "search.views.account.SignInRequired",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "search.asking.Asking",
    "search.sessions.Seen",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "imagesearch.urls"
WSGI_APPLICATION = "imagesearch.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
    {
        "BACKEND": "django.template.backends.jinja2.Jinja2",
        "NAME": "jinja2",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {"environment": "search.jinja.environment"},
    },
]

DATABASES = {"default": ENV.database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
PASSWORD_RESET_TIMEOUT = 3 * 24 * 60 * 60  # how long the link that lets somebody choose a password is good

# --- the sign-in limit: who types a wrong name or password too often waits (django-axes) --------------
AXES_HANDLER = "search.signin_limit.Handler"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]  # a stranger cannot lock the owner out from elsewhere
AXES_FAILURE_LIMIT = ENV.signin_attempts
AXES_COOLOFF_TIME = timedelta(minutes=ENV.signin_minutes)
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # trying on does not make the wait longer
AXES_CLIENT_IP_CALLABLE = "search.asking.lock_address"
AXES_LOCKOUT_CALLABLE = "search.views.account.locked_out"
AXES_DISABLE_ACCESS_LOG = True  # the audit has it
AXES_ENABLE_ADMIN = False  # search.admin.accounts has it
LOGIN_URL = "signin"
LOGIN_REDIRECT_URL = "search"
LOGOUT_REDIRECT_URL = "signin"

LANGUAGE_CODE = "en-us"
TIME_ZONE = ENV.time_zone
USE_I18N = False
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = ENV.data / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# --- security ----------------------------------------------------------------------------------------
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:", "blob:"],
        "media-src": ["'self'"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "manifest-src": ["'self'"],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = ENV.https
SECURE_HSTS_SECONDS = 31_536_000 if ENV.https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = ENV.https
SECURE_REDIRECT_EXEMPT = [r"^health(/ready)?$"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if ENV.https else None
SILENCED_SYSTEM_CHECKS: list[str] = []

# --- background tasks: a few coarse ones; the long work runs in `manage.py process` -----------------
Q_CLUSTER = {
    "name": "imagesearch",
    "workers": 1,
    "recycle": 500,
    "timeout": 3_600,
    "retry": 4_000,
    "max_attempts": 3,
    "ack_failures": True,
    "catch_up": False,
    "save_limit": 200,
    "label": "Background tasks",
    **ENV.broker,
}

# --- the product --------------------------------------------------------------------------------------
IMAGESEARCH_ENCODER: str = ENV.encoder
IMAGESEARCH_PRECISION: str = ENV.precision
IMAGESEARCH_THREADS: int = ENV.threads
IMAGESEARCH_BATCH_SIZE: int = ENV.batch_size
IMAGESEARCH_WORKERS: int = ENV.workers
IMAGESEARCH_MIN_SIDE: int = ENV.min_side
IMAGESEARCH_REVIEW_RATIO: float = ENV.review_ratio
IMAGESEARCH_REVIEW_SMALL: int = ENV.review_small
IMAGESEARCH_REVIEW_BLUR: float = ENV.review_blur
IMAGESEARCH_REVIEW_PLAIN: float = ENV.review_plain
IMAGESEARCH_LOOK_ALIKES: int = ENV.look_alikes
IMAGESEARCH_MAX_MEGAPIXELS: float = ENV.max_megapixels
IMAGESEARCH_FILE_SECONDS: float = ENV.file_seconds
IMAGESEARCH_EXCLUDES: list[str] = ENV.excludes
IMAGESEARCH_MASS_CHANGE: float = ENV.mass_change
IMAGESEARCH_STACKS: bool = ENV.stacks
IMAGESEARCH_MAX_RESULTS: int = ENV.max_results
IMAGESEARCH_MIN_MATCH: int = ENV.min_match
IMAGESEARCH_UPLOAD_HOURS: float = ENV.upload_hours
IMAGESEARCH_QUIET_HOURS: list[tuple[int, int]] = ENV.quiet_hours
IMAGESEARCH_WATCH_FOLDERS: int | None = ENV.watch_folders
IMAGESEARCH_AUDIT_DAYS: int = ENV.audit_days
IMAGESEARCH_PROXIES: int = ENV.proxies
IMAGESEARCH_SIGNIN_MINUTES: float = ENV.signin_minutes
IMAGESEARCH_BACKUPS: Path | None = ENV.backups
IMAGESEARCH_BACKUP_HOURS: float = ENV.backup_hours
IMAGESEARCH_BACKUP_KEEP: int = ENV.backup_keep
IMAGESEARCH_HOST: str = ENV.host
IMAGESEARCH_PORT: int | None = ENV.port
IMAGESEARCH_UNKNOWN_SETTINGS: list[str] = ENV.unknown

LOGGING = ENV.logging
