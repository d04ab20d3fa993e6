"""FW-DTP, fixed-weight difference target propagation: section "Proposed Method", Equations 8 and 12."""

from benchmark.methods.target_propagation import DifferenceCorrection


class FWDTP(DifferenceCorrection):
    """DTP that never trains its decoders. The paper's rows use batch norm, on the output layer too."""

    name = "FW-DTP"
    normalises_output = True

    batch_norm: bool = True
