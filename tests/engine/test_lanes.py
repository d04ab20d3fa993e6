"""What replicas that train apart have in common with those that train side by side."""

import pytest
import torch

from benchmark.engine.build import build
from benchmark.engine.samples import Split
from benchmark.engine.settings import Execution
from benchmark.engine.training import Training
from benchmark.methods import METHODS


@pytest.mark.parametrize("name", METHODS)
def test_a_part_of_a_method_is_the_same_rule_on_the_same_weights(name: str) -> None:
    method = METHODS[name]
    rates = {rate: [0.1, 0.2, 0.3] for rate in method.hyperparameters}
    options = {"feedback_updates": 2} if "feedback_updates" in method.options else {}
    whole = build(method, [6, 5, 5, 3], [1, 2, 3], rates, options)
    part = whole.part(slice(1, 2))
    assert type(part) is type(whole)
    assert part.network.replicas == 1
    for rate in method.hyperparameters:
        assert getattr(part, rate).tolist() == [[[pytest.approx(0.2)]]]
    for option in method.options:
        assert getattr(part, option) == getattr(whole, option)
    for ours, theirs in zip(part.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours[0], theirs[1])
        ours.data.add_(1.0)
        assert torch.equal(ours[0], theirs[1])
    x = torch.randn(1, 6, 4)
    torch.testing.assert_close(part.network(x)[0], whole.network(x)[1])


def test_compiled_numbers_do_not_depend_on_the_number_of_threads() -> None:
    """Where there are at least as many replicas as threads; nor on the replica's neighbours."""
    draw = torch.Generator().manual_seed(1)
    data = Split(torch.randn(300, 12, generator=draw), torch.randint(4, (300,), generator=draw))

    def trained(threads: int, seeds: list[int]) -> list[torch.Tensor]:
        # Built before: orthogonal initial weights are rounded otherwise by other numbers of threads.
        method = build(METHODS["FW-DTP"], [12, 64, 64, 4], seeds, {"lr": 0.3, "stepsize": 0.05})
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            training = Training(method, seeds, data, data, batch_size=64, execution=Execution.COMPILED)
            training.run_epoch()
            assert training.execution is Execution.COMPILED
            return [weight.detach() for weight in method.network.parameters()]
        finally:
            torch.set_num_threads(before)

    one, two, alone = trained(1, [1, 2, 3]), trained(2, [1, 2, 3]), trained(1, [2])
    assert all(map(torch.equal, one, two))
    assert all(torch.equal(ours[1], theirs[0]) for ours, theirs in zip(one, alone, strict=True))
