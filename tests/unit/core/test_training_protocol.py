"What holds for every training: resume to the bit, refused checkpoints, numbers that are not finite"

import math
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import make_faces
from trainers import (
    KINDS,
    Killed,
    assert_equal,
    assert_same_training,
    state_on_disk,
    stop_at,
    train_until_killed,
)

from fairparse.core.runs import InputError

CONFIGS = [
    pytest.param(name, changes, id=f"{name}-{config}")
    for name, kind in KINDS.items()
    for config, changes in {"plain": {}, **kind.configs}.items()
]
every_kind = pytest.mark.parametrize("name", KINDS)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    large = make_faces(folder / "large", 18, train=12)
    small = make_faces(folder / "small", 18, size=16, train=12)
    return {name: large if name == "parser" else small for name in KINDS}


@pytest.fixture
def make(faces):
    "Trainers by the name of their kind"

    def make_trainer(name, folder, **changes):
        own = changes.pop("faces", faces[name])
        torch.manual_seed(4711)  # another process has other random numbers
        return KINDS[name].make(own, folder, **changes)

    return make_trainer


def weights(trainer):
    return [value for net in trainer.networks().values() for value in net.state_dict().values()]


def poison(trainer, name):
    with torch.no_grad():
        next(trainer.networks()[name].parameters()).fill_(math.nan)


# ---- resume


@pytest.mark.parametrize("name, changes", CONFIGS)
def test_stopped_anywhere_it_ends_with_the_same_bits(make, tmp_path, monkeypatch, name, changes):
    "In one go; stopped within every stretch; left after every checkpoint"
    whole = make(name, tmp_path / "whole", **changes)
    history = whole.fit()
    ends = [state[whole.unit] + (whole.unit == "epoch") for state in history.to_dict("records")]
    for begun, end in zip([0, *ends], ends):
        step = 1 if end - begun == 1 and whole.unit == "step" else 2
        with monkeypatch.context() as patched:
            stop_at(patched, type(whole), begun, step)
            with pytest.raises(Killed):
                make(name, tmp_path / "killed", **changes).fit()
        resumed = make(name, tmp_path / "killed", **changes)
        resumed.resume()
        assert resumed.done == begun and len(resumed.history) == ends.index(end)
        for result in KINDS[name].results:
            assert not (tmp_path / "killed" / result).exists(), result
        make(name, tmp_path / "killed", **changes).fit(stop_after=end)
        left = make(name, tmp_path / "left", **changes)
        left.fit(stop_after=end)
        assert left.done == end
    for folder in ("killed", "left"):
        last = make(name, tmp_path / folder, **changes)
        pd.testing.assert_frame_equal(
            last.fit().drop(columns="seconds", errors="ignore"),
            history.drop(columns="seconds", errors="ignore"),
            check_exact=True,
        )
        assert_equal(last.state(), whole.state())
        assert_same_training(tmp_path / "whole", tmp_path / folder)


@every_kind
def test_the_same_seed_gives_the_same_training(make, tmp_path, name):
    for folder in ("one", "other"):
        make(name, tmp_path / folder).fit()
    assert_same_training(tmp_path / "one", tmp_path / "other")


BEST_SO_FAR = {"best.safetensors", "model.json"}  # a parser's, beside its checkpoint


@pytest.mark.parametrize("name", ["parser", "gan", "controlnet"])
def test_resume_after_kill_9_is_exact(make, faces, tmp_path, name):
    first = KINDS[name].stretches[0]
    killed = train_until_killed(name, faces[name], tmp_path / "killed", first)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = {path.name for path in (tmp_path / "killed" / "checkpoint").iterdir()}
    assert left - BEST_SO_FAR == {"state.pt"}
    make(name, tmp_path / "killed").fit()
    make(name, tmp_path / "whole").fit()
    assert_same_training(tmp_path / "killed", tmp_path / "whole")


@every_kind
def test_a_finished_training_takes_no_more_steps(make, tmp_path, monkeypatch, capsys, name):
    first = make(name, tmp_path)
    history, content = first.fit(), (tmp_path / "checkpoint" / "state.pt").read_bytes()
    assert first.history[-1][first.unit] + (first.unit == "epoch") == KINDS[name].stretches[-1]
    monkeypatch.setattr(type(first), "train_step", None)
    again = make(name, tmp_path)
    pd.testing.assert_frame_equal(again.fit(), history)
    assert_equal(again.state(), first.state())
    assert f"resumed after {first.unit} {first.done} of" in capsys.readouterr().out
    assert (tmp_path / "checkpoint" / "state.pt").read_bytes() == content


# ---- checkpoints that are refused


@pytest.mark.parametrize(
    "name, other", [(name, other) for name, kind in KINDS.items() for other in kind.others]
)
def test_another_training_in_the_same_folder_starts_again(
    make, faces, tmp_path, capsys, name, other
):
    end = KINDS[name].stretches[0]
    make(name, tmp_path).fit(stop_after=end)
    trainer = make(name, tmp_path, **KINDS[name].others[other](faces[name]))
    trainer.resume()
    assert trainer.done == 0 and "starting again from the first epoch" in capsys.readouterr().out
    same = make(name, tmp_path)
    same.resume()
    assert same.done == end


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "text", "half"])
@every_kind
def test_a_damaged_checkpoint_is_named(make, tmp_path, name, content):
    make(name, tmp_path).fit(stop_after=KINDS[name].stretches[0])
    path = tmp_path / "checkpoint" / "state.pt"
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    with pytest.raises(InputError, match="checkpoint .*state.pt cannot be read.*delete it"):
        make(name, tmp_path).fit()


# ---- numbers that are not finite


@pytest.mark.parametrize(
    "name, network", [(name, network) for name, kind in KINDS.items() for network in kind.networks]
)
def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    make, tmp_path, monkeypatch, name, network
):
    trainer, (first, second, *_) = make(name, tmp_path), KINDS[name].stretches
    spoil = lambda: poison(trainer, network)
    with monkeypatch.context() as patched:
        stop_at(patched, type(trainer), first, 2 if second > first + 1 or first == 1 else 1, spoil)
        with pytest.raises(InputError) as caught:
            trainer.fit()
    text = str(caught.value)
    where = "in epoch 2, step 2 of" if trainer.unit == "epoch" else f"in step {first + 2} of"
    assert text.startswith("training stopped: ") and where in text, text
    kept = f"The last good checkpoint is kept in {tmp_path / 'checkpoint'}; {trainer.remedy}"
    assert kept in text and text.endswith(", and start again"), text
    for result in KINDS[name].results:
        assert not (tmp_path / result).exists(), result
    again = make(name, tmp_path)
    again.resume()
    assert again.done == first and all(value.isfinite().all() for value in weights(again))
    make(name, tmp_path).fit()
    make(name, tmp_path / "whole").fit()
    assert_same_training(tmp_path, tmp_path / "whole")


@every_kind
def test_weights_that_break_in_the_last_step_do_not_become_the_checkpoint(
    make, tmp_path, monkeypatch, name
):
    "Each loss is finite, and after the last one a weight is not"
    trainer = make(name, tmp_path)
    real, network = type(trainer).stretch, KINDS[name].networks[-1]

    def stretch(self):
        yield from real(self)
        poison(self, network)

    monkeypatch.setattr(type(trainer), "stretch", stretch)
    with pytest.raises(InputError, match="training stopped: a weight is not finite in .*step"):
        trainer.fit()
    assert not (tmp_path / "checkpoint").exists()


# ---- the disk


@every_kind
def test_a_full_disk_is_named_and_leaves_no_half_checkpoint(make, tmp_path, monkeypatch, name):
    make(name, tmp_path).fit(stop_after=KINDS[name].stretches[0])
    before = (tmp_path / "checkpoint" / "state.pt").read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match="cannot write .*: no space left"):
            make(name, tmp_path).fit()
    assert (tmp_path / "checkpoint" / "state.pt").read_bytes() == before
    left = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert left - BEST_SO_FAR == {"state.pt"}
    assert state_on_disk(tmp_path)["identity"] == make(name, tmp_path).identity
