"""Successive halving: survivors train as if alone, and what is stopped goes on bit for bit."""

import itertools
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.common.errors import UserError
from benchmark.config import SearchSpace
from benchmark.engine.samples import Dataset
from benchmark.engine.training import EpochResult, Training
from benchmark.store.store import Store
from benchmark.studies.search import halving
from benchmark.studies.search.halving import Wave
from tests.helpers.tiny import CPU, picked, select

RATES = {"stepsize": 0.07, "lr_feedback": 0.0015, "noise_std": 0.02}
SPACE = SearchSpace(grid={name: [1.0] for name in ("lr", *RATES)}, rungs=[1, 3, 6])
LR = (0.5, 0.002, 0.3, 0.001)
Errors = list[tuple[int, dict[int, float]]]


def ignore(done: int, result: EpochResult | None) -> None:
    """No progress is shown."""


@pytest.fixture
def wave(tmp_path: Path, data: Dataset) -> Wave:
    chosen = select(tmp_path)
    run = replace(picked(chosen, "DTP"), seeds=[1])
    configurations = [{"lr": lr, **RATES} for lr in LR]
    return Wave(run, SPACE, configurations, data.hold_out(100), CPU, chosen.store)


def alone(wave: Wave, values: dict[str, float], epochs: int) -> list[float]:
    """The errors of a configuration, epoch by epoch."""
    rule = replace(wave.run, hyperparameters=values).build(CPU)
    train, test = wave.data.train, wave.data.test
    training = Training(rule, [1], train, test, batch_size=wave.run.batch_size)
    found = []
    while training.epoch < epochs:
        if (result := training.run_epoch()) is not None:
            found += result.test_error
    return found


def test_survivors_go_on_as_if_they_had_trained_alone(wave: Wave) -> None:
    (first, errors), *later = wave.rungs(ignore)
    assert first == 1
    assert sorted(errors) == [0, 1, 2, 3]
    for (rung, found), kept, judged in zip(later, (2, 1), ([1, 2], [4, 5]), strict=True):
        assert sorted(found) == sorted(sorted(errors, key=errors.__getitem__)[:kept])
        for index, error in found.items():
            by_epoch = alone(wave, wave.configurations[index], rung)
            late = [by_epoch[epoch] for epoch in judged][-SPACE.judged(rung) :]
            # One image more or less may fall on the other side by rounding.
            assert error == pytest.approx(sum(late) / len(late), abs=1.1)
        errors = found


def test_the_error_is_averaged_over_the_last_epochs(wave: Wave) -> None:
    """Of a rate so high that the error goes up and down, so that no single epoch would do."""
    values = {**wave.configurations[0], "lr": 5.0}
    (_, first), (_, second) = replace(
        wave, space=SPACE.model_copy(update={"rungs": [1, 6]}), configurations=[values]
    ).rungs(ignore)
    errors = alone(wave, values, 6)
    assert first[0] == pytest.approx(errors[0])
    assert second[0] == pytest.approx((errors[4] + errors[5]) / 2)
    assert errors[4] != errors[5]


def test_waves_larger_than_memory_train_in_parts(wave: Wave, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(wave.rungs(ignore))
    monkeypatch.setattr(halving, "replicas_per_pass", lambda *_: 3)
    parts = list(wave.rungs(ignore))
    assert [rung for rung, _ in parts] == [rung for rung, _ in whole]
    for (_, ours), (_, theirs) in zip(parts, whole, strict=True):
        assert ours == pytest.approx(theirs, abs=1.1)


def test_progress_hears_of_every_epoch(wave: Wave) -> None:
    heard: list[tuple[int, int]] = []
    list(wave.rungs(lambda done, result: heard.append((done, len(result.test_error) if result else 0))))
    before = wave.run.total_epochs - wave.run.epochs
    assert before > 0
    pretraining = [(epoch, 0) for epoch in range(before + 1)]
    rungs = [(1, 4), (1, 0), (2, 2), (3, 2), (3, 0), (4, 1), (5, 1), (6, 1)]
    assert heard == [*pretraining, *((before + epoch, replicas) for epoch, replicas in rungs)]


def test_progress_of_parts_never_goes_back(wave: Wave, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halving, "replicas_per_pass", lambda *_: 3)
    heard: list[int] = []
    list(wave.rungs(lambda done, result: heard.append(done)))
    assert heard == sorted(heard)
    assert (heard[0], heard[-1]) == (0, wave.run.total_epochs - wave.run.epochs + SPACE.rungs[-1])


class Killed(Exception):
    pass


def killed(wave: Wave, after: int, patch: pytest.MonkeyPatch) -> None:
    """Train so many epochs, pre-training included, of all that train side by side, and stop."""
    real, trained = Training.run_epoch, iter(range(after))

    def run_epoch(training: Training) -> EpochResult | None:
        if next(trained, None) is None:
            raise Killed
        return real(training)

    with patch.context() as inner:
        inner.setattr(Training, "run_epoch", run_epoch)
        with pytest.raises(Killed):
            list(wave.rungs(ignore))


def epochs(patch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that are trained from now on."""
    trained: list[int] = []
    real = Training.run_epoch
    patch.setattr(Training, "run_epoch", lambda training: (trained.append(training.epoch), real(training))[1])
    return trained


@pytest.mark.parametrize("side_by_side", [4, 3])
def test_stopped_after_any_epoch_it_goes_on_bit_for_bit(
    wave: Wave, monkeypatch: pytest.MonkeyPatch, side_by_side: int
) -> None:
    monkeypatch.setattr(halving, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(halving, "replicas_per_pass", lambda *_: side_by_side)
    with monkeypatch.context() as patch:
        trained = epochs(patch)
        whole = list(wave.rungs(ignore))
        wave.forget()
    assert len(trained) >= SPACE.rungs[-1]
    for after in range(1, len(trained)):
        killed(wave, after, monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr(halving, "replicas_per_pass", lambda *_: 1)  # as memory holds by now
            left = epochs(patch)
            assert list(wave.rungs(ignore)) == whole
        assert left == trained[after:]
        wave.forget()
        assert not list(wave.store.root.glob("partial/*"))


def test_a_checkpoint_is_replaced_once_it_is_old(wave: Wave, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(time.monotonic() + 70.0, 60.0)  # a minute passes at every look
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    looks: list[int] = []
    real = wave.store.save_checkpoint
    trained = epochs(monkeypatch)
    monkeypatch.setattr(
        wave.store, "save_checkpoint", lambda *given: (looks.append(len(trained)), real(*given))[1]
    )
    list(wave.rungs(ignore))
    wave.forget()
    assert len(trained) == 8
    assert looks == [5]  # after five minutes, and not at once again


def test_a_checkpoint_of_something_else_is_named(wave: Wave) -> None:
    wave.store.save_checkpoint(wave.key, {"completed": 3})
    with pytest.raises(UserError, match=r"not the checkpoint of a search; delete it"):
        list(wave.rungs(ignore))


def test_without_a_checkpoint_nothing_is_left(wave: Wave) -> None:
    list(wave.rungs(ignore))
    assert not list(wave.store.root.glob("partial/*"))


def test_another_wave_has_another_checkpoint(wave: Wave, data: Dataset) -> None:
    others = [
        replace(wave, configurations=wave.configurations[::-1]),
        replace(wave, space=SPACE.model_copy(update={"rungs": [1, 3]})),
        replace(wave, space=SPACE.model_copy(update={"reduction": 2})),
        replace(wave, run=replace(wave.run, seeds=[2])),
        replace(wave, data=data.hold_out(200)),
        replace(wave, data=replace(wave.data, checksum="0" * 64)),
    ]
    assert replace(wave, run=replace(wave.run, measure=("jacobian",))).key == wave.key
    assert len({wave.key, *(other.key for other in others)}) == 1 + len(others)
    assert replace(wave, configurations=[dict(c) for c in wave.configurations]).key == wave.key


def test_a_damaged_checkpoint_is_named(wave: Wave, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halving, "CHECKPOINT_SECONDS", 0.0)
    killed(wave, 2, monkeypatch)
    (file,) = wave.store.root.glob("partial/*/checkpoint.pt")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged .* delete it"):
        list(wave.rungs(ignore))
    assert file.read_bytes() == bytes(content)


def test_two_processes_do_not_train_the_same(wave: Wave) -> None:
    claimed = f"run {wave.key} (a search for DTP on {wave.run.column}) is being trained by another process"
    with Store(wave.store.root).claim(wave.key), pytest.raises(UserError) as error:
        list(wave.rungs(ignore))
    assert str(error.value).startswith(claimed)
