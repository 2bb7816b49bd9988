"""What the program finds is what the model says: the whole path against plain open_clip and numpy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from benchmarks import fidelity
from search.encoders import load_anew
from search.encoders.base import Encoder
from search.encoders.specification import parse
from tests.sandbox import Sandbox


@dataclass(frozen=True)
class Case:
    spec: str
    folder: Path
    names: list[str]
    wanted: list[str]
    captions: list[str]
    expected: fidelity.Floats


@pytest.fixture(scope="module")
def case(shared: Path, dev_clip: str, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """200 captions of 200 photos, among 300."""
    photos = shared / "photos" / "captioned" / "flickr"
    chosen = fidelity.captioned(photos, 200)
    wanted = [name for name, _ in chosen]
    others = sorted(path.name for path in photos.glob("*.jpg") if path.name not in set(wanted))[:100]
    folder = tmp_path_factory.mktemp("photos")
    names = sorted([*wanted, *others])
    for name in names:
        shutil.copy(photos / name, folder / name)
    captions = [caption for _, caption in chosen]
    expected = fidelity.reference(dev_clip, [folder / name for name in names], captions)
    return Case(dev_clip, folder, names, wanted, captions, expected)


def answers(case: Case, sandbox: Callable[..., Sandbox], precision: str) -> fidelity.Answers:
    place = sandbox(IMAGESEARCH_ENCODER=case.spec, IMAGESEARCH_PRECISION=precision)
    return fidelity.product(place.env, case.folder, case.captions)


@pytest.mark.slow
def test_in_fp32_the_first_twenty_are_the_references(case: Case, sandbox: Callable[..., Sandbox]) -> None:
    found = answers(case, sandbox, "fp32")
    assert fidelity.largest_swap(case.expected, case.names, found) <= 2e-4
    assert fidelity.largest_score_error(case.expected, case.names, found) <= 2e-4
    recalls = fidelity.recalls(case.wanted, found)
    print({f"recall@{k}": round(share, 3) for k, share in recalls.items()})
    assert recalls[10] > 0.5  # the reference and the product would agree on nonsense, too


@pytest.mark.slow
def test_in_bf16_the_first_twenty_hardly_change(case: Case, sandbox: Callable[..., Sandbox]) -> None:
    found = answers(case, sandbox, "bf16")
    assert fidelity.overlaps(case.expected, case.names, found).mean() >= 0.95
    assert fidelity.largest_swap(case.expected, case.names, found) > 0  # else it was not computed in bf16


@pytest.fixture(scope="module")
def packed(shared: Path) -> list[bytes]:
    files = sorted((shared / "photos" / "captioned" / "coco").glob("*.jpg"))[::60]
    pictures = [*fidelity.example_pictures()[:3], *(PIL.Image.open(file) for file in files)]
    return [fidelity.twelve_megapixels(picture, seed) for seed, picture in enumerate(pictures)]


@pytest.mark.parametrize("spec", ["dev-clip", "look"])
def test_decoding_at_reduced_scale_changes_nothing_that_matters(
    spec: str, dev_clip: str, packed: list[bytes], settings: pytest.FixtureRequest
) -> None:
    settings.IMAGESEARCH_PRECISION = "fp32"  # type: ignore[attr-defined]
    encoder: Encoder = load_anew(parse(dev_clip if spec == "dev-clip" else spec))
    cosines = fidelity.reduced_against_full(encoder, packed)
    assert cosines.min() >= 0.995
    assert not np.allclose(cosines, 1, atol=1e-7)  # else both were decoded in full


def test_the_comparison_notices_what_is_wrong() -> None:
    """A swap of near equals passes; a missing, doubled or wrong hit does not."""
    names = [f"{i}.jpg" for i in range(30)]
    expected = (np.linspace(0.9, 0.1, 30)[None] + np.array([[0.0]])).astype(np.float32)
    expected[0, 4] = expected[0, 3] - 1e-5
    right = names[:20]
    swapped = [*names[:3], names[4], names[3], *names[5:20]]
    wrong = [*names[:19], names[29]]
    swaps = [
        fidelity.largest_swap(expected, names, fidelity.Answers([found], [[0.0] * len(found)]))
        for found in (right, swapped, wrong, right[:19], [*right[:19], right[0]])
    ]
    assert swaps[0] == 0 and 0 < swaps[1] < 2e-4 and swaps[2] > 0.1
    assert swaps[3] == swaps[4] == float("inf")
    assert fidelity.overlaps(expected, names, fidelity.Answers([wrong], [[]]))[0] == pytest.approx(0.95)
