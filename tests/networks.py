"""Networks with random weights whose outputs depend on their input."""

import torch
from torch import Tensor, nn


def calibrate(network: nn.Module, images: Tensor) -> None:
    """Sets the running statistics to those of `images`, and leaves the network in evaluation mode.

    With statistics that do not fit the random weights, activations fade from layer to layer until every input gives
    the same output to the last digit, and a comparison of outputs compares nothing.
    """
    network.eval()  # without dropped layers, which would shift the statistics
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over the passes, here one
            module.train()
    with torch.no_grad():
        network(images)
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # channels that hardly vary would be blown up, rounding errors included
            module.running_var.clamp_(min=module.running_var.mean().item())
