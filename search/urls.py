from __future__ import annotations

from django.urls import path, register_converter
from django.urls.converters import IntConverter

from search.views import (
    access,
    account,
    accounts,
    albums,
    audit,
    browse,
    copies,
    curate,
    export,
    files,
    handbook,
    identify,
    image,
    keys,
    movies,
    narrow,
    results,
    review,
    selection,
    slides,
    words,
)


class ImageIdConverter(IntConverter):
    """A row id: up to 18 digits, so that every database can compare it."""

    regex = "[0-9]{1,18}"


register_converter(ImageIdConverter, "id")

urlpatterns = [
    path("", results.search, name="search"),
    path("passing/", results.passing, name="passing"),
    path("upload/", results.upload, name="upload"),
    path("upload/<slug:token>.jpg", results.uploaded, name="uploaded"),
    path("identify/", identify.identify_page, name="identify"),
    path("filters/", narrow.panel, name="filters"),
    path("narrow/", narrow.narrow, name="narrow"),
    path("browse/", browse.browse, name="browse"),
    path("export/", export.export, name="export"),
    path("export/download/", export.download, name="export_download"),
    path("image/<id:image_id>/", image.image_page, name="image"),
    path("image/<id:image_id>/panel/", image.image_panel, name="image_panel"),
    path("slides/", slides.slides, name="slides"),
    path("image/<id:image_id>/<slug:verb>/", curate.curate, name="curate"),
    path("selection/", selection.selected_page, name="selection"),
    path("selection/all/", selection.select_all, name="select_all"),
    path("selection/do/", selection.do, name="selection_do"),
    path("selection/errand/", selection.errand, name="errand"),
    path("review/", review.overview, name="review"),
    path("review/<slug:queue>/", review.queue_page, name="review_queue"),
    path("review/<slug:queue>/do/", review.do, name="review_do"),
    path("copies/", copies.copies_page, name="copies"),
    path("copies/keep/", copies.keep, name="copies_keep"),
    path("copies/all/", copies.everything, name="copies_all"),
    path("tags/", words.tag_list, name="tags"),
    path("tags/suggest/", image.tag_suggestions, name="tag_suggestions"),
    path("tags/<id:tag_id>/", words.tag_page, name="tag"),
    path("tags/<id:tag_id>/<slug:verb>/", words.change_tag, name="change_tag"),
    path("keys/", keys.keys_page, name="keys"),
    path("help/", handbook.help_page, name="help"),
    path("help/<slug:slug>/", handbook.help_chapter, name="help_chapter"),
    path("help/picture/<slug:name>.png", handbook.help_picture, name="help_picture"),
    path("searches/", words.saved_searches, name="searches"),
    path("albums/", albums.album_list, name="albums"),
    path("albums/<id:album_id>/", albums.album_page, name="album"),
    path("albums/<id:album_id>/<slug:verb>/", albums.change_album, name="change_album"),
    path("action/<id:action_id>/undo/", curate.undo, name="undo"),
    path("history/", curate.history, name="history"),
    path("thumbnail/<id:image_id>.jpg", files.thumbnail, name="thumbnail"),
    path("picture/<id:image_id>.jpg", files.picture, name="picture"),
    path("original/<id:image_id>/", files.original, name="original"),
    path("movie/<id:image_id>/", movies.movie, name="movie"),
    path("favicon.ico", files.favicon, name="favicon"),
    path("signin", account.SignIn.as_view(), name="signin"),
    path("signout", account.SignOut.as_view(), name="signout"),
    path("account/", account.account, name="account"),
    path("account/password/", account.ChangePassword.as_view(), name="password"),
    path("account/session/<id:session_id>/end/", account.end_session, name="end_session"),
    path("account/sessions/end/", account.end_other_sessions, name="end_other_sessions"),
    path("invitation/<slug:uidb64>/<slug:token>/", account.Invitation.as_view(), name="invitation"),
    path("access/", access.access_list, name="access"),
    path("access/<id:source_id>/", access.source_access, name="source_access"),
    path("accounts/", accounts.accounts_page, name="accounts"),
    path("accounts/<id:person_id>/", accounts.account_page, name="account_of"),
    path("audit/", audit.audit_page, name="audit"),
    path("audit.csv", audit.audit_export, name="audit_export"),
    path("welcome/<str:token>/", account.welcome_page, name="welcome"),
]
