"Homotopy: weights add up to one at every epoch, whatever the schedule and its constants"

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairparse.core.runs import InputError
from fairparse.parsing.homotopy import (
    END,
    OBJECTIVES,
    SCHEDULES,
    START,
    Homotopy,
    find_objective,
    mean_weights,
)

unit = st.floats(0, 1)
simplex = (
    st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
    .filter(any)
    .map(lambda w: tuple(x / sum(w) for x in w))
)
levels = st.lists(unit, min_size=1, max_size=5).map(sorted)
pieces = levels.flatmap(
    lambda steps: st.fixed_dictionaries(
        {
            "levels": st.just(steps),
            "borders": st.lists(unit, min_size=len(steps) - 1, max_size=len(steps) - 1).map(sorted),
        }
    )
)
constants = st.one_of(
    st.tuples(st.just("linear"), st.just({})),
    st.tuples(st.just("constant"), st.just({})),
    st.tuples(st.just("piecewise"), pieces),
    st.tuples(
        st.just("sigmoid"),
        st.fixed_dictionaries({"steepness": st.floats(0.1, 60), "midpoint": st.floats(0.1, 0.9)}),
    ),
)


@settings(deadline=None, max_examples=200)
@given(constants, simplex, simplex, st.integers(1, 40))
def test_weights_add_up_to_one_and_lie_in_0_1(chosen, start, end, epochs):
    homotopy = Homotopy(chosen[0], start, end, chosen[1])
    for epoch in range(epochs):
        weights = homotopy(epoch, epochs)
        assert len(weights) == 3
        assert abs(sum(weights) - 1) < 1e-9
        assert all(-1e-12 <= w <= 1 + 1e-12 for w in weights)


@settings(deadline=None, max_examples=100)
@given(constants, simplex, st.integers(2, 40))
def test_accuracy_never_rises_and_the_others_never_fall(chosen, end, epochs):
    path = np.array([Homotopy(chosen[0], START, end, chosen[1])(e, epochs) for e in range(epochs)])
    assert (np.diff(path[:, 0]) <= 1e-12).all() and (np.diff(path[:, 1:], axis=0) >= -1e-12).all()


def test_every_schedule_is_tested():
    assert {"constant", "linear", "sigmoid", "piecewise"} <= set(SCHEDULES)


@pytest.mark.parametrize("name", ["linear", "sigmoid", "piecewise"])
@pytest.mark.parametrize("epochs", [1, 2, 3, 30])
def test_moving_schedules_go_from_accuracy_to_the_end_weights(name, epochs):
    assert Homotopy(name)(0, epochs) == START
    if epochs > 1:
        assert Homotopy(name)(epochs - 1, epochs) == pytest.approx(END)


def test_the_single_objective_is_accuracy_alone():
    single = find_objective("single").homotopy
    assert all(single(e, 30) == (1, 0, 0) for e in range(30))


def test_the_constant_control_has_the_mean_of_the_linear_schedule():
    control, linear = find_objective("constant_mean").homotopy, find_objective("linear").homotopy
    assert (
        control(0, 30)
        == control(29, 30)
        == pytest.approx(np.mean([linear(e, 30) for e in range(30)], 0))
    )
    assert sum(mean_weights(linear)) == pytest.approx(1)


def test_piecewise_jumps_at_its_borders():
    homotopy = Homotopy("piecewise", constants={"borders": [0.5], "levels": [0, 1]})
    assert [homotopy(e, 5)[0] for e in range(5)] == pytest.approx([1, 1, 0.4, 0.4, 0.4])


@pytest.mark.parametrize(
    "wrong",
    [
        {"schedule": "cubic"},
        {"start": (1, 0)},
        {"end": (0.5, 0.5, 0.5)},
        {"end": (1.5, -0.5, 0)},
        {"end": (float("nan"), 0.5, 0.5)},
        {"end": "half"},
        {"end": 0.4},
        {"schedule": "linear", "constants": {"steepness": 3}},
        {"schedule": "sigmoid", "constants": {"steepness": 0}},
        {"schedule": "sigmoid", "constants": {"midpoint": float("nan")}},
        {"schedule": "piecewise", "constants": {"borders": [0.5, 0.2]}},
        {"schedule": "piecewise", "constants": {"levels": [0, 1]}},
        {"schedule": "piecewise", "constants": {"borders": [0.1, 0.3], "levels": [0, 2, 1]}},
        {"schedule": "sigmoid", "constants": {"steepness": "much"}},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError):
        Homotopy(**wrong)


def test_objectives_are_found_by_name():
    assert find_objective("linear_alt").loss == {"fairness": "shortfall"}
    with pytest.raises(InputError, match="'lineer' is none of .*linear"):
        find_objective("lineer")
    assert len({o.title for o in OBJECTIVES.values()}) == len(OBJECTIVES)


def test_slower_methods_get_fewer_epochs():
    assert [find_objective(name).epochs_for(24) for name in ("single", "single_longer")] == [24, 48]
    assert find_objective("linear_inputs").epochs_for(24) == 12
    assert find_objective("fair").epochs_for(1) == 1
    assert find_objective("fair").cost > find_objective("cleaned").cost > 1


def test_fair_and_its_control_differ_in_the_homotopy_alone():
    ours, control = find_objective("fair"), find_objective("fair_homotopy")
    assert (ours.loss, ours.training, ours.network) == (
        control.loss,
        control.training,
        control.network,
    )
    assert ours.homotopy == find_objective("single").homotopy
    assert control.homotopy == find_objective("linear").homotopy
