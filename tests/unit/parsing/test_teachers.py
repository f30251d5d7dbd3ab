"Teachers of groups: who is heard, who learns from whom, and that a stop changes nothing"

import pytest
import torch
from helpers import make_faces, make_parser
from torch import nn
from trainers import Killed, assert_same_training

from fairparse.core.runs import InputError
from fairparse.parsing.teachers import (
    GroupTeachers,
    share_epochs,
    train_parser,
    train_teachers,
)
from fairparse.parsing.train import TrainConfig, Trainer
from fairparse.parsing.unet import load_parser


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
    teachers = GroupTeachers({0: Says(2.0, 0.0), 2: Says(0.0, 3.0)})
    member = torch.tensor([[0.0, 0.0, 0.0], [1, 0, 1], [0, 1, 1], [0, 1, 0]])
    faces, told = teachers(torch.zeros(4, 3, 4, 4), member)
    first, second = torch.tensor([2.0, 0]).softmax(0), torch.tensor([0.0, 3]).softmax(0)
    assert faces.tolist() == [1, 2]  # the group in the middle has no teacher
    torch.testing.assert_close(told[:, :, 0, 0], torch.stack([(first + second) / 2, second]))


def test_the_divergence_is_that_of_kullback_and_leibler():
    teachers = GroupTeachers({0: Says(2.0, 0.0)}, weight=0.5)
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    told = teachers(torch.zeros(2, 3, 4, 4), torch.tensor([[1.0], [0.0]]))
    loss = teachers.divergence(logits, *told)
    first = torch.tensor([2.0, 0]).softmax(0)[:, None, None]
    by_hand = (first * (first.log() - logits[0].log_softmax(0))).sum() / 32 / 2
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    assert logits.grad[0].abs().sum() > 0 and not logits.grad[1].any()


def test_nobody_is_told_where_no_face_has_a_teacher():
    teachers = GroupTeachers({0: Says(2.0, 0.0)})
    told = teachers(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1))
    assert teachers.divergence(torch.randn(2, 2, 4, 4), *told) == 0


def test_the_epochs_of_all_parts_are_one_budget():
    for epochs in (8, 28, 60):
        before, student = share_epochs(settings(epochs=epochs, teachers=0.5))
        assert abs(2 * before + student * 4 / 3 - epochs) <= 1
    for wrong in ({"epochs": 1}, {"teachers": 1.0}, {"teachers": 0.01}):
        with pytest.raises(InputError, match="epochs with teachers"):
            share_epochs(settings(**wrong))


def test_teachers_come_from_common_weights_and_their_own_faces(faces, tmp_path):
    config = settings(groups=list(faces.attributes)[:1])
    rows, name = faces.rows("train"), list(faces.attributes)[0]
    teachers, seconds = train_teachers(make_parser(), faces, rows, config, tmp_path)
    assert list(teachers.parsers) == ["0"] and seconds > 0
    pupil, own = (
        load_parser(tmp_path / "common"),
        rows[faces.attribute_values([name])[rows, 0] == 1],
    )
    short = settings(groups=[name], epochs=share_epochs(config)[0], teachers=0.0)
    Trainer(pupil, faces, own, rows[:0], short, tmp_path / "again", progress=False).fit()
    for ours, theirs in zip(
        teachers.parsers["0"].parameters(),
        load_parser(tmp_path / "again").parameters(),
        strict=True,
    ):
        assert torch.equal(ours, theirs) and not ours.requires_grad


def stop_in(monkeypatch, part):
    "Kill a training with teachers in the last step of one of its parts"
    step = Trainer.train_step

    def killed(self, rows, *arguments):
        last = (rows == self.order(self.config.epochs - 1)[-1]).all()
        if self.folder.name == part and last:
            raise Killed
        return step(self, rows, *arguments)

    monkeypatch.setattr(Trainer, "train_step", killed)


@pytest.mark.parametrize("part", ["common", "group0", "killed"])
def test_a_training_that_is_killed_goes_on_to_the_bit(faces, tmp_path, monkeypatch, part):
    groups = list(faces.attributes)[:1]
    whole, seconds = train(faces, tmp_path / "whole", groups=groups)
    assert len(whole) == share_epochs(settings())[1] and seconds > whole.seconds.sum()
    with monkeypatch.context() as patched:
        stop_in(patched, part)
        with pytest.raises(Killed):
            train(faces, tmp_path / "killed", groups=groups)
    train(faces, tmp_path / "killed", groups=groups)
    assert_same_training(tmp_path / "whole", tmp_path / "killed")


def test_the_trainer_alone_has_no_teachers(faces, tmp_path):
    with pytest.raises(InputError, match="teachers.train_parser"):
        Trainer(make_parser(), faces, faces.rows("train"), [], settings(), tmp_path)


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
