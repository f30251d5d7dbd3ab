"Methods for the worst-off group: what each weighs, draws and keeps, by hand"

import numpy as np
import pytest
import torch
from helpers import make_faces
from trainers import make_parser_trainer as make_trainer

from fairparse.core.records import HISTORY, read_table
from fairparse.core.runs import InputError
from fairparse.core.training import epoch_order
from fairparse.parsing.group_methods import (
    FACE_WEIGHTS,
    equal_shares,
    group_mious,
    log_priors,
    make_face_weights,
    next_share,
    with_rest,
    worst_of,
)
from fairparse.parsing.losses import (
    LossConfig,
    MultiObjectiveLoss,
    SoftCounts,
    dice_loss,
    dice_losses,
    soft_counts,
)
from fairparse.parsing.train import TrainConfig


def batch(classes=4, seed=0):
    "Logits of six faces; the first two are of group 0, the next three of group 1, the last of none"
    torch.manual_seed(seed)
    member = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [0, 0]]).float()
    logits = torch.randn(6, classes, 8, 8, requires_grad=True)
    return logits, torch.randint(0, classes, (6, 8, 8)), member


def test_faces_of_no_group_are_a_group():
    member = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert with_rest(member).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_equal_shares_give_every_group_the_same_part_of_an_epoch():
    member = np.repeat(np.eye(3)[:, :2], [70, 10, 20], axis=0)  # the last twenty are of no group
    factors = equal_shares(member)
    assert factors.mean() == pytest.approx(1)
    kinds = np.repeat([0, 1, 2], [70, 10, 20])
    assert [factors[kinds == k].sum() for k in range(3)] == pytest.approx([100 / 3] * 3)
    drawn = np.concatenate(
        [epoch_order(np.arange(100), factors, 0, epoch, 8).ravel() for epoch in range(40)]
    )
    assert len(drawn) == 40 * 96  # an epoch is as long as before
    assert np.bincount(kinds[drawn]) / len(drawn) == pytest.approx([1 / 3] * 3, abs=0.02)


def test_empty_groups_and_overlaps_take_no_share():
    member = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]])  # nobody is of the third
    factors = equal_shares(member)
    assert factors == pytest.approx(4 / 2 * np.array([1 / 2 + 1 / 3, 1 / 2, 1 / 3, 1 / 3]))


@pytest.mark.parametrize("name", FACE_WEIGHTS)
def test_weights_are_positive_finite_and_without_gradient(name):
    kind = make_face_weights(name, 2, {})
    _, _, member = batch()
    for losses in (torch.rand(6, requires_grad=True), torch.zeros(6), torch.ones(6)):
        weights = kind(losses, member)
        assert weights.shape == (6,) and not weights.requires_grad
        assert weights.isfinite().all() and (weights > 0).all()


@pytest.mark.parametrize("name", FACE_WEIGHTS)
def test_what_is_remembered_survives_a_checkpoint(name):
    _, _, member = batch()
    first, second = (make_face_weights(name, 2, {}) for _ in range(2))
    for losses in torch.rand(20, 6, generator=torch.Generator().manual_seed(0)):
        first(losses, member)
    state = first.state_dict()
    assert any(not torch.equal(state[key], value) for key, value in second.state_dict().items())
    second.load_state_dict(state)
    losses = torch.tensor([0.6, 0.5, 0.2, 0.3, 0.1, 0.2])
    assert torch.equal(second(losses, member), first(losses, member))


def test_group_scaling_by_hand():
    kind = make_face_weights("group_scaling", 2, {"power": 2.0, "decay": 0.0})
    _, _, member = batch()
    losses = torch.tensor([0.6, 0.6, 0.3, 0.3, 0.3, 0.3])
    weights = kind(losses, member)  # group means 0.6, 0.3, 0.3, of mean 0.4
    assert weights.tolist() == pytest.approx([2.25] * 2 + [0.5625] * 4)


def test_group_dro_by_hand():
    "q after one step, over the shares of the memberships in the batch"
    kind = make_face_weights("group_dro", 2, {"step": 1.0, "decay": 0.0})
    _, _, member = batch()
    q = np.exp([0.6, 0.3, 0.3])
    expected = (q / q.sum()) / np.array([2, 3, 1]) * 6
    weights = kind(torch.tensor([0.6, 0.6, 0.3, 0.3, 0.3, 0.3]), member)
    assert weights.tolist() == pytest.approx(expected.repeat([2, 3, 1]).tolist(), rel=1e-5)


def test_group_dro_turns_to_the_group_that_stays_worst():
    kind = make_face_weights("group_dro", 2, {"step": 0.5})
    _, _, member = batch()
    ratio = []
    for _ in range(20):
        weights = kind(torch.tensor([0.6, 0.6, 0.3, 0.3, 0.3, 0.3]), member)
        ratio.append(float(weights[0] / weights[2]))
    assert all(a < b for a, b in zip(ratio, ratio[1:])) and ratio[-1] > 10


def test_tails_hold_the_worst_share_of_each_group():
    "Two groups whose losses do not overlap: of both, a third is in the tail"
    kind = make_face_weights("group_tails", 2, {"share": 1 / 3, "step": 0.05})
    rng = np.random.default_rng(0)
    inside = {0: [], 1: []}
    for number in range(3000):
        group = int(rng.integers(2))
        loss = rng.uniform(0.1, 0.2) + 0.5 * group
        weight = kind(torch.tensor([loss]).float(), torch.eye(2)[[group]])
        if number > 1000:
            inside[group].append(float(weight) > 0.5)
    assert [np.mean(values) for values in inside.values()] == pytest.approx([1 / 3] * 2, abs=0.04)


def test_weights_of_one_are_the_plain_loss_and_a_face_that_counts_twice_is_there_twice(monkeypatch):
    logits, target, member = batch()
    counts = soft_counts(logits, target)
    given = torch.tensor([1.0, 1.0, 1.0, 2.0, 1.0, 1.0])
    loss = MultiObjectiveLoss(4, 2, LossConfig(face_weights="group_scaling"))
    monkeypatch.setattr(loss.face_weights, "weigh", lambda losses, member: given)
    twice = loss(logits, target, member, (1, 0, 0)).accuracy
    again = counts.map(lambda c: torch.cat([c, c[3:4]]))
    assert twice.item() == pytest.approx(dice_loss(again).item())
    monkeypatch.setattr(loss.face_weights, "weigh", lambda losses, member: torch.ones(6))
    assert torch.equal(loss(logits, target, member, (1, 0, 0)).accuracy, dice_loss(counts))


def test_losses_of_faces_are_over_their_own_classes():
    counts = SoftCounts(
        *map(torch.tensor, ([[4.0, 0.0], [1.0, 1.0]], [[4.0, 0.0], [2.0, 2.0]], [[4.0, 0], [2, 2]]))
    )
    assert dice_losses(counts).tolist() == pytest.approx([0, 0.5], abs=1e-5)


def test_logit_adjustment_adds_the_log_shares_while_training():
    logits, target, member = batch()
    masks = np.array([[[0] * 12 + [1] * 3 + [2]]], np.uint8)
    priors = log_priors(masks, 4)  # the last class has no pixel and counts as having one
    assert np.exp(priors) == pytest.approx(np.array([12, 3, 1, 1]) / 16)
    loss = MultiObjectiveLoss(4, 2, LossConfig(logit_adjustment=0.5, log_priors=priors))
    shifted = logits + 0.5 * torch.tensor(priors)[:, None, None]
    expected = dice_loss(soft_counts(shifted, target))
    assert loss(logits, target, member, (1, 0, 0)).accuracy.item() == pytest.approx(expected.item())


def test_scores_of_groups_are_over_the_classes_that_all_counted_groups_have():
    counts = np.zeros((4, 3, 3))
    counts[0] = [[8, 1, 1], [2, 2, 0], [5, 0, 0]]
    counts[1] = [[6, 2, 2], [1, 0, 1], [0, 3, 0]]  # has not the third class
    counts[2] = [[0, 0, 9], [0, 9, 0], [0, 0, 9]]  # one face
    counts[3] = counts[:3].sum(0)
    scores = group_mious(counts, np.array([4, 2, 1]))
    assert scores[:2] == pytest.approx([(0.8 + 0.5) / 2, (0.6 + 0.5) / 2])
    assert np.isnan(scores[2]) and worst_of(scores[:3]) == scores[1]
    assert scores[3] == pytest.approx((14 / 29 + 3 / 15) / 2)
    assert np.isnan(worst_of(np.full(2, np.nan)))


@pytest.mark.parametrize(
    "share, worst, expected", [(0.2, 0.5, 0.25), (0.2, 0.695, 0.15), (0.6, 0.5, 0.6), (0, 0.7, 0)]
)
def test_the_share_of_worse_pictures_follows_the_worst_group(share, worst, expected):
    assert next_share(share, np.array([0.72, worst, np.nan]), 0.7) == pytest.approx(expected)
    assert next_share(share, np.array([np.nan]), 0.7) == share


def test_a_guided_training_records_its_share(faces, tmp_path):
    history = make_trainer(faces, tmp_path, guided=True, epochs=4).fit()
    assert history.worse.iloc[0] == 0
    moves = history.worse.diff().iloc[1:].abs()
    assert ((moves.round(6) == 0.05) | (history.worse.iloc[1:] == 0)).all()
    assert history.valid_worst.le(history.valid_miou + 1).all()
    assert (
        read_table(tmp_path / "history.parquet", HISTORY).worse.tolist() == history.worse.tolist()
    )


@pytest.mark.parametrize("select", ["best", "worst_group"])
def test_the_selected_weights_are_the_result(faces, tmp_path, monkeypatch, select):
    "Scores are given, so that the second of three epochs is best"
    trainer = make_trainer(faces, tmp_path, select=select)
    scores = iter([(0.3, 0.1), (0.5, 0.4), (0.4, 0.2)])

    def validate():
        overall, worst = next(scores)
        return overall, np.array([worst] * (trainer.member.shape[1] + 1))

    monkeypatch.setattr(trainer, "validate", validate)
    trainer.fit()
    model, best = (tmp_path / f"{which}.safetensors" for which in ("model", "best"))
    assert model.read_bytes() == best.read_bytes()
    plain = make_trainer(faces, tmp_path / "plain", epochs=3)
    plain.fit()
    assert model.read_bytes() != (tmp_path / "plain" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "asked",
    [
        {"equal_shares": True},
        {"guided": True},
        {"select": "worst_group"},
        {"loss": {"face_weights": "group_dro"}},
    ],
    ids=str,
)
def test_methods_for_groups_need_groups(tmp_path, asked):
    bare = make_faces(tmp_path / "faces", 6, attributes=())
    with pytest.raises(InputError, match="has no attributes, but"):
        make_trainer(bare, tmp_path / "parser", objective="single", **asked)


@pytest.mark.parametrize(
    "loss", [{"face_weights": "dro"}, {"face_weights": "group_dro", "logit_adjustment": -1.0}]
)
def test_wrong_methods_are_named(loss):
    with pytest.raises(InputError, match="face_weights|logit_adjustment"):
        TrainConfig(loss=loss)


def test_unknown_constants_of_weights_are_named():
    with pytest.raises(InputError, match="group_dro.*does not take"):
        make_face_weights("group_dro", 2, {"power": 2.0})
