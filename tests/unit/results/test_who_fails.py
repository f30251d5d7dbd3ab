"Who fails first: cells by hand, intervals that hold for all cells at once, doses"

import numpy as np
import pytest

from fairparse.core.runs import InputError
from fairparse.data.groups import Groups
from fairparse.results.who_fails import (
    CLEAN,
    Cells,
    cell_table,
    crossing,
    describe_worst,
    dose_table,
    draw_cells,
    fairness_corruption,
    score_cells,
    widths,
)

SETTINGS = [CLEAN, ("blur", 0.1), ("blur", 0.3), ("jpeg", 0.3)]
PAIR = Groups(["Tone_1", "Tone_5"], np.repeat(np.eye(2, dtype=bool), [70, 30], axis=1))


def sweep(drops, seed=0, trainings=2):
    """{setting: counts} of a hundred faces, some harder than others

    `drops`: setting -> what the IoU of the (first, second) group loses.
    """
    rng, second = np.random.default_rng(seed), PAIR.membership[1]
    faces, counts = 0.85 + rng.normal(0, 0.05, 100), {}
    for setting, drop in drops.items():
        skill = np.clip(faces - np.where(second, drop[1], drop[0]), 0, 1)
        tp = rng.binomial(200, skill[None, :, None], (trainings, 100, 2))
        counts[setting] = np.stack([tp, 200 - tp, np.zeros_like(tp)], -1)
    return counts


EQUAL = {setting: (0.3 * setting[1], 0.3 * setting[1]) for setting in SETTINGS}
BLUR = EQUAL | {("blur", s): (0.3 * s, s) for s in (0.1, 0.3)}


def test_cells_are_what_the_definition_says():
    swept = sweep(BLUR)
    table = cell_table(score_cells(swept, PAIR, resamples=50))
    table = table.set_index(["group", "perturbation", "severity"])
    for setting, counts in swept.items():
        sums = [counts[:, member].sum(1) for member in (*PAIR.membership, np.ones(100, bool))]
        first, second, everyone = (
            100 * np.mean(part[..., 0] / part.sum(-1), -1).mean() for part in sums
        )
        for group, score in (("Tone_1", first), ("Tone_5", second)):
            row = table.loc[(group, *setting)]
            assert row.miou == pytest.approx(score)
            assert row.behind == pytest.approx(everyone - score)
            assert row.low < row.behind < row.high
    assert (table.loc["Tone_5"]["size"] == 30).all() and (table.trainings == 2).all()


def test_the_worst_cell_and_the_group_that_is_thrown_back_are_found():
    cells = score_cells(sweep(BLUR), PAIR)
    table, error = cell_table(cells), fairness_corruption(cells).set_index("group")
    worst = table.loc[table.behind.idxmax()]
    assert (worst.group, worst.perturbation, worst.severity) == ("Tone_5", "blur", 0.3)
    assert worst.low > 0
    # blur throws the second group back by .7 of the severity, .2 on average; jpeg by nothing
    expected = 0.7 * (100 * 0.14 + 0) / 2
    assert error.low["Tone_5"] < expected < error.high["Tone_5"] and error.low["Tone_5"] > 0
    said = describe_worst("single", table, error.reset_index())
    assert "Tone 5 under blur 0.3" in said and "throws back Tone 5 most" in said


@pytest.mark.parametrize("drops", [EQUAL, BLUR], ids=["equal", "blur"])
def test_intervals_hold_for_all_cells_at_once(drops):
    "Faces are drawn anew and so are trainings, which share no luck here"
    held, truth = [], []
    for setting in SETTINGS:
        first, second = drops[setting]
        everyone = 0.7 * first + 0.3 * second
        truth.append([100 * (first - everyone), 100 * (second - everyone)])
    for seed in range(80):
        table = cell_table(score_cells(sweep(drops, seed), PAIR, resamples=200))
        expected = np.array(truth).T.ravel()
        held.append(((table.low <= expected) & (expected <= table.high)).all())
    assert np.mean(held) >= 0.88


def test_trainings_that_scatter_make_intervals_wider():
    rng = np.random.default_rng(0)
    drawn = rng.normal(0, 1, (300, 4, 3))
    steady = np.zeros((5, 4, 3))
    scattered = rng.normal(0, 5, (5, 4, 1)) + np.zeros((5, 4, 3))
    assert (widths(scattered, drawn) > widths(steady, drawn) * 1.5).all()
    assert (widths(steady[:1], drawn) < widths(steady, drawn)).all()
    # of twelve independent quantities the largest error is some 2.9 standard errors
    assert widths(steady[:1], drawn).mean() == pytest.approx(2.9, abs=0.3)


@pytest.mark.parametrize(
    "scores, level, dose",
    [
        ([80, 70, 50], 64, 0.16),
        ([80, 70, 50], 70, 0.1),
        ([80, 70, 50], 40, np.inf),
        ([60, 70, 50], 64, 0.0),
        ([80, 60, 70], 64, 0.08),  # below once is below, whatever comes after
    ],
)
def test_doses_lie_on_straight_lines(scores, level, dose):
    found = crossing(np.array([0, 0.1, 0.3]), np.array([scores, scores], float), level)
    assert found == pytest.approx([dose, dose])


def test_dose_table_has_everybody_and_what_lies_beyond():
    table = dose_table(score_cells(sweep(BLUR), PAIR), share=0.85)
    doses = table.set_index(["group", "perturbation"])
    assert doses.dose["Tone_5", "blur"] < doses.dose["all faces", "blur"]
    assert np.isinf(doses.dose["Tone_1", "jpeg"]) and (doses["last"] == 0.3).all()
    assert (table.low <= table.dose).all() and (table.dose <= table.high).all()


def test_the_figure_frames_the_worst_cell_and_marks_what_is_shown():
    cells = score_cells(sweep(BLUR), PAIR)
    both = cell_table(cells), fairness_corruption(cells)
    figure = draw_cells({"single": both, "linear": both})
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title("left") for ax in panels][0] == "Single Objective" and len(panels) == 2
    (frame,) = panels[0].patches
    assert (frame.get_x() + 0.5, frame.get_y() + 0.5) == (2, 0)  # of four columns, first row
    labels = [text.get_text() for text in panels[0].get_yticklabels()]
    assert labels == ["Tone 5 (30)", "Tone 1 (70)"]
    dots = panels[0].lines[0].get_xydata()
    shown = both[0].query("low > 0 or high < 0")
    assert len(dots) == len(shown) > 0


def test_what_cannot_be_compared_is_refused():
    swept = sweep(EQUAL)
    with pytest.raises(InputError, match="clean setting"):
        score_cells({s: swept[s] for s in SETTINGS[1:]}, PAIR)
    with pytest.raises(InputError, match="clean setting"):
        score_cells({CLEAN: swept[CLEAN]}, PAIR)


def test_a_cell_without_scatter_is_not_divided_by():
    scores = np.full((1, 2, 3), 50.0)
    cells = Cells([CLEAN, ("blur", 0.1)], PAIR, scores, np.repeat(scores, 20, axis=0))
    table = cell_table(cells)
    assert (table.behind == 0).all() and (table.high == 0).all()
