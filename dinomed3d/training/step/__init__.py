"""One optimizer step: logits of the stages, precision, optimizer, processes, and a trial of its memory."""
