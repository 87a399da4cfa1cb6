"""One round of validation, shared among the devices of a run."""

from __future__ import annotations

from contextlib import closing

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory
from pointseg.cloud import Cloud
from pointseg.loading.samples import or_raise
from pointseg.loading.stream import Stream
from pointseg.training.tasks.task import TrainingTask


@torch.no_grad()
def validate(
    fabric: Fabric,
    network: nn.Module,
    task: TrainingTask,
    loader: DataLoader[Cloud | UserError],
) -> Tensor:
    """Sum the metrics of the task over all validation scenes, one point per voxel.

    Args:
        fabric: the devices.
        network: the bare network; the one wrapped for several devices would wait for devices without a scene.
        task: what is measured.
        loader: the scenes of this device.

    Returns:
        What ``task.update_metrics`` returns, summed over scenes and devices, on the CPU.

    Raises:
        UserError: a scene that cannot be read, or does not fit into memory.
    """
    network.eval()
    if fabric.world_size > 1:  # validate with the statistics that are saved: the first device's
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)
    total = task.empty_metrics()
    with closing(Stream(loader)) as samples:
        for sample in samples:
            cloud = or_raise(sample)
            try:
                cloud = cloud.to(fabric.device)
                with fabric.autocast():
                    total = total + task.update_metrics(network(cloud), cloud).cpu()
            except (RuntimeError, MemoryError) as error:
                if not ran_out_of_memory(error):
                    raise
                raise UserError(
                    f"out of memory with the {len(cloud)} voxels of a whole validation scene; the run is kept: "
                    "--resume it where there is more memory, or start one with larger voxels "
                    "(--override voxel_m=...)"
                ) from error
    if fabric.world_size == 1:
        return total
    summed = fabric.all_reduce(total.to(fabric.device), reduce_op="sum")
    assert isinstance(summed, Tensor)
    return summed.cpu()
