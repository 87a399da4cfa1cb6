"""Sizing of a configuration: nnU-Net's CNN first, then tokens that suit it, then the encoder.

Patch, batch and CNN are those of nnU-Net's own rule. The encoder reads tokens as fine as they can be while
their side of a training step (encoder, neck, fusion) costs at most TOKEN_SHARE of the CNN's operations: fine tokens
are worth more than a large encoder. The encoder is then the largest that keeps both this share and the memory. If
memory is short, the tuned blocks are computed again in the backward pass (activation checkpointing), and then nnU-Net's
rule is asked for less memory: smaller patches make both sides smaller, and tokens stay fine.
"""

from planners.sizing.cnn_rule import CnnPlan, CnnRule
from planners.sizing.dataset_stats import DatasetStats
from planners.sizing.size_configuration import Sizing, size_configuration

__all__ = ["CnnPlan", "CnnRule", "DatasetStats", "Sizing", "size_configuration"]
