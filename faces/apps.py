from django.apps import AppConfig


class FacesConfig(AppConfig):
    name = "faces"
    verbose_name = "Faces and people"
    default_auto_field = "django.db.models.BigAutoField"
