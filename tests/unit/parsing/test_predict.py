"Prediction: label maps, mirrored averages, counts"

import numpy as np
import pytest
import torch
from helpers import make_faces, make_parser

from fairparse.core.runs import InputError, write_json
from fairparse.data.labels import flip_labels, flip_order
from fairparse.measure.counts import iou
from fairparse.parsing.predict import (
    check_fold,
    predict_masks,
    predict_probabilities,
    score_faces,
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("faces"), 7)


@pytest.fixture(scope="module")
def parser():
    return make_parser().eval()


@pytest.mark.parametrize("flip", [False, True, None])
def test_probabilities_add_up_to_one(parser, faces, flip):
    images = torch.from_numpy(np.array(faces.images)).permute(0, 3, 1, 2)
    probs = predict_probabilities(parser, images, flip)
    assert probs.shape == (7, 19, 32, 32) and not probs.requires_grad
    torch.testing.assert_close(probs.sum(1), torch.ones(7, 32, 32))


def test_mirrored_average_follows_the_mirror(parser, faces):
    images = torch.from_numpy(np.array(faces.images)).permute(0, 3, 1, 2)
    order = torch.as_tensor(flip_order())
    there, back = (
        predict_probabilities(parser, images, True),
        predict_probabilities(parser, images.flip(-1), True),
    )
    torch.testing.assert_close(back.flip(-1)[:, order], there, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(predict_probabilities(parser, images, False), there)


def test_the_spec_decides_unless_asked(faces):
    averaging = make_parser(flip_average=True).eval()
    assert (
        predict_masks(averaging, faces.images) == predict_masks(averaging, faces.images, flip=True)
    ).all()
    assert (
        predict_masks(averaging, faces.images, flip=False)
        == predict_masks(make_parser().eval(), faces.images)
    ).all()


def test_the_batch_size_does_not_matter(parser, faces):
    whole = predict_masks(parser, faces.images)
    assert whole.dtype == np.uint8 and whole.shape == (7, 32, 32)
    assert (predict_masks(parser, faces.images, batch_size=2) == whole).mean() > 0.999
    assert predict_masks(parser, faces.images[:0]).shape == (0, 32, 32)


@pytest.mark.parametrize("shape", [(2, 32, 32), (2, 3, 32, 32), (2, 40, 32, 3), (2, 32, 33, 3)])
def test_images_of_another_shape_are_refused(parser, shape):
    with pytest.raises(InputError, match="multiples of 32"):
        predict_masks(parser, np.zeros(shape, np.uint8))


def test_counts_are_of_the_chosen_faces(parser, faces):
    rows = np.array([5, 0, 3])
    counts = score_faces(parser, faces, rows, batch_size=2)
    assert counts.shape == (3, 19, 3)
    assert (
        counts[..., [0, 2]].sum(2)
        == [np.bincount(faces.masks[r].ravel(), minlength=19) for r in rows]
    ).all()
    assert 0 <= iou(counts) < 0.3
    assert (flip_labels(flip_labels(faces.masks)) == faces.masks).all()


def test_other_classes_and_no_faces_are_refused(parser, faces):
    with pytest.raises(InputError, match="other classes"):
        score_faces(make_parser(classes=["a", "b"]), faces, np.array([0]))
    with pytest.raises(InputError, match="no faces"):
        score_faces(parser, faces, np.array([], int))


@pytest.mark.parametrize("run", [None, {}, {"parameters": {"recipe": "strong"}}])
def test_a_parser_without_a_fold_goes_with_the_own_split(tmp_path, run):
    "As `fairparse train` leaves it, as it comes from a hub, or with its weights alone"
    if run is not None:
        write_json(tmp_path / "run.json", run)
    said = []
    check_fold(tmp_path, -1, said.append)
    assert "no record of a fold" in said[0]
    with pytest.raises(InputError, match="no record of a fold, and fold 0 is tested"):
        check_fold(tmp_path, 0, said.append)


def test_a_parser_goes_with_its_own_fold_only(tmp_path):
    write_json(tmp_path / "run.json", {"parameters": {"fold": 2}})
    said = []
    check_fold(tmp_path, 2, said.append)
    assert not said
    for other in (-1, 0):
        with pytest.raises(InputError, match=f"trained with fold 2, and fold {other} is tested"):
            check_fold(tmp_path, other)


def test_pictures_are_cleaned_before_they_are_resized():
    "A resized broken pixel is at no end of the range any more"
    picture, away = torch.full((1, 3, 64, 64), 100.0), {}
    picture[..., 20:40, 10:50] = 160
    broken = picture.clone()
    broken[..., ::5, ::7] = 255
    for clean in (True, False):
        parser = make_parser(size=64, clean=clean, scales=[1.5]).eval()
        looks = [predict_probabilities(parser, seen) for seen in (broken, picture)]
        away[clean] = (looks[0] - looks[1]).abs().mean()
    assert away[True] < 0.1 * away[False]
