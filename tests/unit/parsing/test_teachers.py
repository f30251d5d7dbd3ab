"Teachers of groups: who is heard, who learns from whom, and that a stop changes nothing"

import pytest
import torch
from helpers import make_faces, make_parser
from torch import nn
from trainers import Killed, assert_same_training, stop_at

from fairparse.core.runs import InputError
from fairparse.parsing.teachers import (
    GroupTeachers,
    share_epochs,
    train_parser,
    train_teachers,
)
from fairparse.parsing.train import TrainConfig, Trainer
from fairparse.parsing.unet import load_parser


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("faces"), 18, train=12)


def settings(**changes):
    return TrainConfig(**{"objective": "group_teachers", "epochs": 4, "batch_size": 4, **changes})


def train(faces, out, **changes):
    rows = faces.rows("train"), faces.rows("valid")
    return train_parser(make_parser(), faces, *rows, settings(**changes), out, progress=False)


class Says(nn.Module):
    "A teacher with the same logits everywhere"

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images):
        return self.logits[None, :, None, None].expand(len(images), -1, *images.shape[-2:])


def test_each_face_hears_the_teachers_of_its_groups():
    teachers = GroupTeachers([Says(2.0, 0.0), Says(0.0, 3.0), Says(1.0, 1.0)])
    member = torch.tensor([[0.0, 0.0], [1, 1], [0, 1]])
    told = teachers.opinions(torch.zeros(3, 3, 4, 4), member)[:, :, 0, 0]
    first, second = torch.tensor([2.0, 0]).softmax(0), torch.tensor([0.0, 3]).softmax(0)
    torch.testing.assert_close(
        told, torch.stack([torch.tensor([0.5, 0.5]), (first + second) / 2, second])
    )


def test_the_divergence_is_that_of_kullback_and_leibler():
    teachers = GroupTeachers([Says(2.0, 0.0), Says(1.0, 1.0)], weight=0.5)
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    loss = teachers(torch.zeros(2, 3, 4, 4), logits, torch.tensor([[1.0], [0.0]]))
    told = torch.stack([torch.tensor([2.0, 0]).softmax(0), torch.tensor([0.5, 0.5])])
    told = told[:, :, None, None].expand(2, 2, 4, 4)
    by_hand = (told * (told.log() - logits.log_softmax(1))).sum(1).mean() / 2
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    assert logits.grad.abs().sum() > 0


def test_the_epochs_of_all_parts_are_one_budget():
    for epochs in (8, 28, 60):
        before, student = share_epochs(settings(epochs=epochs, teachers=0.5))
        assert abs(2 * before + student * 4 / 3 - epochs) <= 1
    assert share_epochs(settings(epochs=1)) == (1, 1)


def test_teachers_come_from_common_weights_and_their_own_faces(faces, tmp_path):
    config = settings(groups=list(faces.attributes)[:1])
    rows, name = faces.rows("train"), list(faces.attributes)[0]
    teachers = train_teachers(make_parser(), faces, rows, config, tmp_path)
    assert len(teachers.parsers) == 2  # of the group, and the common one for all others
    common = load_parser(tmp_path / "common")
    pupil, own = (
        load_parser(tmp_path / "common"),
        rows[faces.attribute_values([name])[rows, 0] == 1],
    )
    short = settings(groups=[name], epochs=share_epochs(config)[0], teachers=0.0)
    Trainer(pupil, faces, own, rows[:0], short, tmp_path / "again", progress=False).fit()
    for ours, theirs in zip(
        teachers.parsers[0].parameters(), load_parser(tmp_path / "again").parameters(), strict=True
    ):
        assert torch.equal(ours, theirs) and not ours.requires_grad
    for ours, theirs in zip(teachers.parsers[1].parameters(), common.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_training_that_is_killed_goes_on_to_the_bit(faces, tmp_path, monkeypatch):
    groups = list(faces.attributes)[:1]
    whole = train(faces, tmp_path / "whole", groups=groups)
    assert len(whole) == share_epochs(settings())[1]
    with monkeypatch.context() as patched:
        stop_at(patched, Trainer, done=1, step=1)
        with pytest.raises(Killed):
            train(faces, tmp_path / "killed", groups=groups)
    train(faces, tmp_path / "killed", groups=groups)
    assert_same_training(tmp_path / "whole", tmp_path / "killed")


def test_without_teachers_it_is_the_trainer(faces, tmp_path):
    train(faces, tmp_path / "ours", objective="single")
    rows = faces.rows("train"), faces.rows("valid")
    config = settings(objective="single")
    Trainer(make_parser(), faces, *rows, config, tmp_path / "plain", progress=False).fit()
    assert_same_training(tmp_path / "ours", tmp_path / "plain")
    assert not (tmp_path / "ours" / "teachers").exists()


def test_teachers_need_groups(tmp_path):
    faces = make_faces(tmp_path / "faces", 6, attributes=())
    with pytest.raises(InputError, match=r"no attributes, but \[.teachers.\] needs groups"):
        train(faces, tmp_path / "parser")


def test_several_processes_are_refused(faces, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="train without torchrun"):
        train(faces, tmp_path)
