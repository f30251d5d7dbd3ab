"Perturbations: range, severity, seeds, errors"
import pytest
import torch

from fairparse.perturb import PERTURBATIONS, perturb, perturbation
from fairparse.runs import InputError


def images(size=(32, 32)): return torch.randint(0, 256, (3, 3, *size), generator=torch.Generator().manual_seed(0)).float()


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("severity", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_range_shape_and_seed(name, severity, size):
    def once(seed):
        torch.manual_seed(seed)
        return perturb(images(size), name, severity)
    damaged = once(0)
    assert damaged.shape == (3, 3, *size) and damaged.dtype == torch.float32 and 0 <= damaged.min() and damaged.max() <= 255
    assert torch.equal(damaged, once(0))
    if severity == 0: assert torch.equal(damaged, images(size))


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_more_severe_is_further_away(name):
    torch.manual_seed(0)
    away = [(perturb(images(), name, s) - images()).abs().mean() for s in (0, 0.2, 0.5, 1.0)]
    assert away == sorted(away) and away[-1] > away[1] > 0


def test_noise_has_its_deviation():
    torch.manual_seed(0)
    noise = perturb(torch.full((4, 3, 64, 64), 128.0), "gaussian_noise", 0.1) - 128
    assert noise.std() == pytest.approx(25.5, rel=0.03) and noise.mean().abs() < 0.5


def test_blur_spreads_a_point_as_its_docstring_says():
    point = torch.zeros(1, 3, 65, 65)
    point[..., 32, 32] = 255
    spread = perturb(point, "blur", 1.0)[0, 0]
    offsets = torch.arange(65) - 32.0
    deviation = ((spread.sum(0) / spread.sum()) * offsets**2).sum().sqrt()
    assert spread.sum() == pytest.approx(255, rel=1e-3) and deviation == pytest.approx(0.04 * 65, rel=0.05)
    assert torch.allclose(perturb(torch.full((1, 3, 32, 32), 77.0), "blur", 0.7), torch.tensor(77.0))


def test_occlusion_hides_one_grey_square_a_face():
    torch.manual_seed(0)
    hidden = (perturb(torch.zeros(50, 3, 40, 40), "occlusion", 0.5) == 128).all(1)
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert (hidden.sum((1, 2)) == rows * columns).all() and ((rows - 20).abs() <= 1).all() and ((columns - 20).abs() <= 1).all()
    assert len({tuple(h.nonzero()[0].tolist()) for h in hidden}) > 20
    assert (perturb(torch.zeros(2, 3, 8, 8), "occlusion", 1.0) == 128).all()


def test_integer_images_are_taken():
    assert perturb(images().byte(), "blur", 0.1).dtype == torch.float32


@pytest.mark.parametrize("name,severity", [("rain", 0.1), ("blur", -0.1), ("blur", 1.5), ("blur", float("nan"))])
def test_wrong_names_and_severities_are_refused(name, severity):
    with pytest.raises(InputError, match="rain" if name == "rain" else "severity"): perturb(images(), name, severity)


def test_a_perturbation_of_ones_own(monkeypatch):
    monkeypatch.delitem(PERTURBATIONS, "brighter", raising=False)
    @perturbation
    def brighter(images, severity): return images + 300 * severity
    assert perturb(images(), "brighter", 1.0).min() == 255
    monkeypatch.delitem(PERTURBATIONS, "brighter")
