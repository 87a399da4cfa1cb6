"""One step of training: batches, Mix3D, losses, the update of the network, its numbers and its memory."""
