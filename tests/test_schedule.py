import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qat.errors import ConfigurationError
from qat.schedule import Progress, QuantState, Schedule


def at(schedule, epoch, total=10):
    return schedule.state_at(Progress(epoch=epoch, total_epochs=total))


def test_without_settings_a_tenth_is_float_and_batch_norm_freezes_at_six_tenths():
    schedule = Schedule()
    assert [at(schedule, epoch).phase for epoch in range(10)] == ["float"] + ["quantize"] * 4 + ["frozen"] + [
        "final"
    ] * 4
    assert not at(schedule, 5).freeze_batch_norm and at(schedule, 6).freeze_batch_norm and at(schedule, 6).freeze_scales


def test_observers_may_begin_before_quantization():
    schedule = Schedule(start=4, observe=2, freeze_observers=6, freeze_batch_norm=8, freeze_scales=9)
    assert [at(schedule, epoch).phase for epoch in range(10)] == [
        "float", "float", "observe", "observe", "quantize", "quantize", "frozen", "frozen", "frozen", "final",
    ]  # fmt: skip
    assert at(schedule, 8) == QuantState(observe=False, fake_quantize=True, freeze_batch_norm=True)


def test_a_ladder_gives_the_width_in_force():
    schedule = Schedule(freeze_observers=0.8, weight_bits={0: 8, 4: 6, 8: 4}, activation_bits=[[0, 8], [6, 4]])
    assert [at(schedule, epoch).weight_bits for epoch in range(10)] == [8] * 4 + [6] * 4 + [4] * 2
    assert [at(schedule, epoch).activation_bits for epoch in range(10)] == [8] * 6 + [4] * 4
    assert at(schedule, 5).weight_bits == 6


def test_final_waits_for_the_last_rung():
    schedule = Schedule(0.0, None, 0.1, 0.2, weight_bits={0: 8, 7: 4})
    assert [at(schedule, epoch).final for epoch in (2, 6, 7, 9)] == [False, False, True, True]


def test_steps_epochs_and_shares_may_be_mixed():
    schedule = Schedule(
        start="100 steps", freeze_observers=3, freeze_batch_norm=0.5, weight_bits={0: 8, "1 step": 6, 0.9: 4}
    )
    progress = Progress(epoch=2, step=99, total_epochs=10, total_steps=1000)
    assert schedule.state_at(progress).phase == "float"
    assert schedule.state_at(Progress(2, 100, 10, 1000)).phase == "quantize"
    assert schedule.state_at(Progress(3, 300, 10, 1000)).phase == "frozen"
    assert [schedule.state_at(Progress(0, step, 10, 1000)).weight_bits for step in (0, 1, 899, 900)] == [8, 6, 6, 4]


def test_the_share_of_a_run_is_the_larger_of_steps_and_epochs():
    assert Progress(epoch=1, step=90, total_epochs=10, total_steps=100).share == 0.9
    assert Progress(epoch=5, total_epochs=10, share_of_epoch=0.5).share == 0.55
    assert Progress(epoch=5, step=100).share is None


@pytest.mark.parametrize("name", ["total_epochs", "total_steps"])
def test_lightnings_spelling_of_a_run_without_end_is_refused(name):
    with pytest.raises(ConfigurationError, match=f"^progress.{name} is -1; a run without a known end has None there.$"):
        Progress(**{name: -1})


def test_a_share_of_a_run_without_end_is_refused_and_steps_are_not():
    with pytest.raises(ConfigurationError, match=r"schedule\.\w+ is the share 0\.\d of a run whose length is unknown"):
        Schedule().state_at(Progress(epoch=3, step=100))
    schedule = Schedule(start=1, freeze_observers=2, freeze_batch_norm="500 steps")
    assert schedule.state_at(Progress(epoch=3, step=500)).final


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 1.5}, r"schedule\.start is 1\.5; a share of the run lies in 0\.\.1"),
        ({"start": -0.1}, "a share of the run lies"),
        ({"start": math.nan}, "a share of the run lies"),
        ({"start": -1}, "schedule.start is epoch -1; epochs count from 0"),
        ({"start": True}, "schedule.start is True; a point is"),
        ({"start": None}, "schedule.start is None; a point is"),
        ({"freeze_observers": [1]}, r"schedule\.freeze_observers is \[1\]"),
        ({"start": "500"}, "schedule.start is '500'; steps are written '500 steps'"),
        ({"start": "-5 steps"}, "steps are written"),
        ({"start": "half"}, "steps are written"),
        ({"start": 0.7}, r"schedule\.start at 0\.7 must come before schedule\.freeze_observers at 0\.5"),
        ({"start": 0.5}, r"schedule\.start at 0\.5 must come before schedule\.freeze_observers at 0\.5"),
        ({"start": 3, "observe": 2, "freeze_observers": 2}, "schedule.observe at 2 must come before schedule.freeze_o"),
        ({"start": 0.2, "observe": 0.3}, "schedule.observe at 0.3 must come before schedule.start at 0.2"),
        ({"start": 0.4, "freeze_batch_norm": 0.3, "freeze_observers": 0.5}, "schedule.start at 0.4 must come before"),
        ({"start": 5, "freeze_scales": 3}, "schedule.start at 5 must come before schedule.freeze_scales at 3"),
        ({"weight_bits": {}}, "schedule.weight_bits is empty"),
        ({"weight_bits": {5: 4}}, r"weight_bits=\{5: 4\} does not say how many bits epoch 0 uses; .*\{0: 8, 5: 4\}"),
        ({"weight_bits": {0: 8, 5: 9}}, "the width of schedule.weight_bits at 5 is 9"),
        ({"weight_bits": {0: 4, 5: 8}}, "goes from 4 bits at 0 to 8 at 5; a ladder only descends"),
        ({"weight_bits": {0: 8, 5: 8}}, "a ladder only descends"),
        ({"weight_bits": [[0, 8], [5, 6], [5, 4]]}, "at 5 must come before"),
        ({"weight_bits": [[0, 8], [6, 6], [5, 4]]}, "at 6 must come before"),
        ({"weight_bits": 8}, r"is 8; write a list of \[point, bits\] pairs"),
        ({"weight_bits": [[0, 8, 1]]}, "write a list of"),
        ({"activation_bits": {0: 8, 1.5: 4}}, "a point of schedule.activation_bits is 1.5"),
    ],
)
def test_a_contradiction_is_refused_where_it_is_written(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Schedule(**settings)


def test_a_ladder_that_ends_above_the_config_is_refused():
    schedule = Schedule(weight_bits={0: 8, 4: 6}, activation_bits={0: 8})
    schedule.check_reaches(6, 8)
    with pytest.raises(
        ConfigurationError, match=r"schedule\.weight_bits ends at 6 bits, above the 4 bits of the config"
    ):
        schedule.check_reaches(4, 8)
    with pytest.raises(ConfigurationError, match=r"schedule\.activation_bits ends at 8 bits, above the 4"):
        schedule.check_reaches(8, 4)


def test_points_that_a_run_never_reaches_are_told():
    schedule = Schedule(start=1, freeze_observers=5, freeze_batch_norm="900 steps", weight_bits={0: 8, 12: 4})
    assert schedule.check_against(Progress(total_epochs=20, total_steps=2000)) == []
    told = schedule.check_against(Progress(total_epochs=10, total_steps=800))
    assert [sentence.split(" is ")[0] for sentence in told] == ["schedule.freeze_batch_norm", "schedule.weight_bits"]
    assert all("never reached" in sentence for sentence in told)


@pytest.mark.parametrize(
    ("schedule", "progress", "told"),
    [
        (
            Schedule(freeze_batch_norm=1.0),
            Progress(total_epochs=10),
            ["schedule.freeze_batch_norm is 1.0, but the run"],
        ),
        (
            Schedule(freeze_batch_norm="30 steps"),
            Progress(total_epochs=5, batches_per_epoch=12, batches_per_step=2),
            ["schedule.freeze_batch_norm is '30 steps', but the run ends at epoch 5, step 30"],
        ),
        (
            Schedule(freeze_batch_norm="29 steps"),
            Progress(total_epochs=5, batches_per_epoch=12, batches_per_step=2),
            [],
        ),
        # batches begin at 0 and 0.5 of the run
        (Schedule(), Progress(total_epochs=1, batches_per_epoch=2), ["schedule.freeze_batch_norm is 0.6"]),
        (Schedule(), Progress(total_epochs=1, batches_per_epoch=3), []),
        (Schedule(freeze_batch_norm=0.5), Progress(total_epochs=1, batches_per_epoch=2), ["no batch of a run that"]),
        (Schedule(), Progress(total_steps=3, batches_per_epoch=100, batches_per_step=1), []),
        (Schedule(freeze_batch_norm=2), Progress(total_steps=250), []),  # it cannot be told which epoch that is
    ],
)
def test_what_a_run_of_this_length_never_does_is_told(schedule, progress, told):
    sentences = schedule.check_against(progress)
    assert len(sentences) == len(told)
    assert all(sentence.startswith(start) for sentence, start in zip(sentences, told, strict=True)), sentences


@pytest.mark.parametrize("progress", [Progress(total_epochs=5), Progress(total_epochs=5, batches_per_epoch=7)])
def test_points_of_different_units_in_the_wrong_order_are_refused_once_the_length_is_known(progress):
    schedule = Schedule(start=3, freeze_observers=0.5, freeze_batch_norm=0.6)
    with pytest.raises(ConfigurationError, match="start at 3 must come before .*freeze_observers at 0.5 in a run that"):
        schedule.check_against(progress)
    Schedule(start=2, freeze_observers=0.5, freeze_batch_norm=0.6).check_against(progress)


def test_the_last_batch_of_a_run():
    last = Progress(total_epochs=5, batches_per_epoch=12, batches_per_step=5).of_last_batch()
    assert (last.epoch, last.step, last.share_of_epoch) == (4, 14, 1.0 - 1.0 / 12)
    last = Progress(total_epochs=9, total_steps=7, batches_per_epoch=12, batches_per_step=5).of_last_batch()
    assert (last.epoch, last.step) == (2, 6)


points = st.floats(0.0, 1.0)


@given(st.lists(points, min_size=4, max_size=4).map(sorted).filter(lambda order: order[0] < order[2]), points, points)
def test_phases_only_go_forward(order, one, other):
    observe, start, freeze_observers, freeze_batch_norm = order
    schedule = Schedule(start, observe, freeze_observers, freeze_batch_norm, weight_bits={0: 8, 0.3: 4})
    early, late = (
        schedule.state_at(Progress(step=int(share * 1000), total_steps=1000)) for share in sorted((one, other))
    )
    assert late.weight_bits <= early.weight_bits
    for flag in ("fake_quantize", "freeze_batch_norm", "freeze_scales", "final"):
        assert getattr(late, flag) or not getattr(early, flag)
    assert early.final <= (early.fake_quantize and early.freeze_batch_norm and not early.observe)
