"""FW-DTP, fixed-weight difference target propagation: section "Proposed Method", Equations 8 and 12."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from benchmark.methods.dtp import DTP
from benchmark.methods.network import DECODER_INIT


class FWDTP(DTP):
    """DTP that never trains its decoders. The paper's rows use batch norm, on the output layer too."""

    name = "FW-DTP"
    hyperparameters: ClassVar[tuple[str, ...]] = ("lr", "stepsize")
    options: ClassVar[Mapping[str, Any]] = {"decoder_init": DECODER_INIT, "batch_norm": True}
    learns_feedback = False
    normalises_output = True
