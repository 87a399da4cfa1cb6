"""Cost of a training step or prediction, computed from the network's spec without building it.

Memory is counted as PyTorch keeps it in mixed precision: activations for the backward pass in 2 bytes, the
transformer's residual stream and the losses in 4, weights, gradients and AdamW's two moments in 4 each, and
autocast's 2-byte copies of weights. Not counted: memory of libraries (CUDA context, cuDNN workspaces, gaps of the
allocator).
"""

from planners.cost.step_cost import StepCost
from planners.cost.steps import prediction, stage_one, stage_two

__all__ = ["StepCost", "prediction", "stage_one", "stage_two"]
