"""Makes docs/screenshots and docs/guide/pictures anew: the real program, on generated pictures and skimage.data's.

    .venv/bin/python docs/make_screenshots.py

Nobody's photos are shown: landscapes are painted from a seed, the rest ships with scikit-image (public domain or CC0).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "screenshots"
GUIDE = ROOT / "docs" / "guide" / "pictures"
CHROMIUM = os.environ.get("IMAGESEARCH_CHROMIUM", "/usr/bin/chromium")
PHOTOS = ["astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "motorcycle_left", "moon", "camera", "coins"]
PAINTED = 45
PATIENCE = 120


def main() -> int:
    from playwright.sync_api import sync_playwright

    TARGET.mkdir(exist_ok=True)
    GUIDE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        photos = Path(scratch) / "Pictures"
        make_pictures(photos)
        env = {key: value for key, value in os.environ.items() if not key.startswith("IMAGESEARCH_")}
        env |= {"IMAGESEARCH_DATA": str(Path(scratch) / "data"), "IMAGESEARCH_ENCODER": "look", "PYTHONUNBUFFERED": "1"}
        env |= {"IMAGESEARCH_ENV_FILE": os.devnull, "DATABASE_URL": ""}
        command = [sys.executable, "manage.py", "start", "--no-browser", "--photos", str(photos)]
        output = Path(scratch) / "output.txt"
        with open(output, "w") as out:
            program = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT)
        try:
            link = wait_for(lambda: re.search(r"http://\S+/welcome/\S+", output.read_text()), program, output)[0]
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
                take(browser, link, env)
        finally:
            program.send_signal(signal.SIGINT)
            program.wait(timeout=30)
    return 0


def wait_for(condition, program, output):  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        if program.poll() is not None:
            break
        time.sleep(0.3)
    raise SystemExit(f"The program did not get there:\n{output.read_text()}")


def done(env: dict[str, str]) -> bool:
    """Whether every picture is searchable."""
    import json

    asked = subprocess.run(
        [sys.executable, "manage.py", "stats", "--json"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    report = json.loads(asked.stdout.strip().splitlines()[-1])
    return bool(report["readable"] >= PAINTED + len(PHOTOS))


def take(browser, link: str, env: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    base = link.partition("/welcome/")[0]
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
    page.goto(link)
    page.fill("#id_username", "ada")
    page.fill("#id_password", "a-long-word-indeed")
    page.fill("#id_again", "a-long-word-indeed")
    page.get_by_role("button", name="Create my account").click()
    page.wait_for_url(lambda address: "/welcome/" not in address)
    deadline = time.monotonic() + PATIENCE
    while not done(env) and time.monotonic() < deadline:
        time.sleep(1)
    state = page.context.storage_state()
    shoot(page, f"{base}/?q=red+sunset", "search.png")
    shoot(page, f"{base}/browse/", "browse.png")
    shoot(page, f"{base}/progress/", "progress.png")
    page.goto(f"{base}/?q=name:chelsea")
    page.locator("#grid a").first.click()
    page.wait_for_url(re.compile(r"/image/\d+/"))
    shoot(page, page.url, "image.png")
    shoot(page, f"{base}/?q=red+sunset", "lightbox.png", before=lambda: look_large(page))
    shoot(page, f"{base}/browse/", "keys.png", before=lambda: page.keyboard.press("?"))
    shoot(page, f"{base}/admin/", "admin.png")

    def ask() -> None:
        page.locator("#action-toggle").check()
        page.select_option('select[name="action"]', label="Tag…")
        page.get_by_role("button", name="Go").click()
        page.fill('input[name="deed-tag"]', "evening, lake")

    shoot(page, f"{base}/admin/search/image/?q=landscape", "admin-deed.png", before=ask)
    dark = browser.new_context(
        viewport={"width": 390, "height": 800}, color_scheme="dark", storage_state=state, device_scale_factor=2
    )
    shoot(dark.new_page(), f"{base}/?q=red", "phone.png")
    take_guide(page, base, env)


LIVED_IN = """
from django.contrib.auth import get_user_model
from search import accounts, albums, curation, personal, tagging
from search.models import Image, SourceAccess, Source, Tag
ada = get_user_model().objects.get(username="ada")
ben = get_user_model().objects.create_user("ben", password="another-long-word")
accounts.make_group("family", by=ada)
SourceAccess.objects.create(source=Source.objects.first(), user=ben, role="editor")
ids = list(Image.objects.filter(name__startswith="landscape").order_by("name").values_list("pk", flat=True))
one = {name: [Image.objects.get(name=name + ".jpg").pk] for name in ["chelsea", "coffee", "rocket", "astronaut"]}
curation.tag(one["chelsea"], ["cat", "animals"], ada)
curation.tag(one["rocket"], ["space"], ada)
curation.tag(one["astronaut"], ["space", "people"], ada)
curation.tag(ids[:20], ["landscape"], ada)
curation.tag(ids[:8], ["sunset"], ben)
tagging.set_parent(Tag.objects.get(key="cat"), "animals", ada)
tagging.set_parent(Tag.objects.get(key="sunset"), "landscape", ada)
tagging.set_colour(Tag.objects.get(key="sunset"), "red", ada)
tagging.set_colour(Tag.objects.get(key="animals"), "green", ada)
curation.rate(ids[:5] + one["chelsea"], 5, ada)
curation.rate(ids[5:12], 4, ben)
curation.set_title(one["chelsea"], "Chelsea the cat", ada)
personal.favourite(one["chelsea"] + ids[:3], ada)
personal.comment(one["chelsea"], "She sat still for once.", ben)
album, _ = albums.create("The coast", ada)
albums.add(album, ids[:14], ada)
albums.share(album, ben, "editor", ada)
"""
"""What makes the library look lived in, through the same verbs as the pages."""


def take_guide(page, base: str, env: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    """The pictures of the guide, of a library with tags, an album and a second person."""
    command = [sys.executable, "manage.py", "shell", "--verbosity", "0", "-c", LIVED_IN]
    subprocess.run(command, cwd=ROOT, env=env, check=True)

    def shot(address: str, name: str, before=None) -> None:  # type: ignore[no-untyped-def]
        shoot(page, f"{base}{address}", name, folder=GUIDE, before=before)

    shot("/progress/", "progress.png")
    shot("/?q=red+sunset", "search.png")
    page.goto(f"{base}/?q=name:chelsea")
    cat = re.search(r"/image/(\d+)/", page.locator("#grid .tile > a:first-child").first.get_attribute("href"))[1]
    page.goto(f"{base}/?q=name:landscape")
    coast = re.search(r"/image/(\d+)/", page.locator("#grid .tile > a:first-child").nth(3).get_attribute("href"))[1]
    source = re.search(r"/access/(\d+)/", page.goto(f"{base}/access/").text())[1]
    shot(f"/?like={coast}", "like.png")
    shot("/filters/?q=sunset", "filters.png")
    shot(f"/identify/?like={coast}&among=source:{source}", "identify.png")
    shot(f"/image/{cat}/", "image.png")

    def select() -> None:
        for place in (1, 2, 4):
            page.locator(".tile .tick input").nth(place).click()
        page.click("#selection summary:has-text('Tag')")

    shot("/browse/?rating=%3E%3D4", "selection.png", before=select)
    page.click("[data-select-none]")
    shot("/tags/", "tags.png")
    shot("/review/blurred/", "review.png")
    shot(page.goto(f"{base}/albums/") and page.locator(".card a").first.get_attribute("href"), "album.png")
    shot("/spaces/", "spaces.png")
    shot("/accounts/", "accounts.png")
    shot("/audit/", "audit.png")


def look_large(page) -> None:  # type: ignore[no-untyped-def]
    """Into the lightbox, with a rating and what is known about the picture."""
    page.locator("#grid > .tile > a:first-child").nth(1).click()
    page.locator(".lightbox.ready").wait_for()
    page.keyboard.press("4")
    page.locator("[data-close-toast]").click()
    page.keyboard.press("i")
    page.locator(".lightbox-panel .facts").wait_for()


def shoot(page, address: str, name: str, *, folder: Path = TARGET, before=None) -> None:  # type: ignore[no-untyped-def]
    page.goto(address, wait_until="load")
    if before:
        before()
    page.wait_for_timeout(1_500)  # pictures below the fold load lazily; those in view are here
    page.screenshot(path=str(folder / name))
    print((folder / name).relative_to(ROOT))


def make_pictures(folder: Path) -> None:
    """Landscapes of sky, sun, hills and water from a seed, and the photos of scikit-image."""
    import numpy as np
    import skimage.data
    from PIL import Image, ImageFilter

    folder.mkdir(parents=True)
    source = Path(skimage.data.__file__).parent
    for name in PHOTOS:
        found = next(source.glob(f"{name}.*"))
        Image.open(found).convert("RGB").save(folder / f"{name}.jpg", quality=92)
    with Image.open(next(source.glob("rocket.*"))) as rocket:
        rocket.convert("RGB").filter(ImageFilter.GaussianBlur(6)).save(folder / "rocket, moved.jpg", quality=92)
    random = np.random.default_rng(7)
    for number in range(PAINTED):
        width, height = [(900, 600), (600, 900), (1200, 600), (800, 800)][number % 4]
        Image.fromarray(paint(random, width, height)).save(folder / f"landscape {number:02d}.jpg", quality=90)


def paint(random, width: int, height: int):  # type: ignore[no-untyped-def]
    """One landscape, (height, width, 3) uint8."""
    import numpy as np

    y, x = np.mgrid[0:height, 0:width] / height
    skies = [
        ((40, 70, 150), (250, 170, 90)), ((20, 20, 60), (220, 70, 60)), ((90, 170, 240), (225, 240, 250)),
        ((250, 200, 120), (255, 240, 210)), ((60, 40, 90), (240, 130, 150)), ((10, 12, 30), (40, 50, 90)),
    ]  # fmt: skip
    top, bottom = (np.array(colour, dtype=float) for colour in skies[random.integers(len(skies))])
    horizon = random.uniform(0.45, 0.7)
    share = np.clip(y / horizon, 0, 1)[..., None]
    picture = top * (1 - share) + bottom * share
    sun = np.hypot(x - random.uniform(0.2, 0.9) * width / height, y - random.uniform(0.15, horizon))
    glow = np.exp(-((sun / 0.35) ** 2))[..., None] * 0.5
    picture = picture * (1 - glow) + np.array((255, 235, 190)) * glow
    picture[sun < random.uniform(0.03, 0.08)] = (255, 244, 214)
    greens = [(34, 60, 50), (70, 110, 60), (120, 90, 60), (40, 50, 80), (150, 130, 90)]
    for layer in range(random.integers(2, 5)):
        phases, waves = random.uniform(0, 6.28, 4), random.uniform(1, 9, 4)
        ridge = sum(np.sin(x[0] * wave + phase) / wave for wave, phase in zip(waves, phases, strict=True))
        edge = horizon + layer * 0.1 - 0.06 * ridge
        base = np.array(greens[random.integers(len(greens))], dtype=float)
        haze = bottom * (0.55 - 0.15 * layer) + base * (0.45 + 0.15 * layer)
        picture = np.where((y > edge)[..., None], haze, picture)
    grain = random.normal(0, 3, (height, width, 1))
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
