"""What one step of training consists of: Mix3D, losses, optimizer, schedule, and the memory it takes."""
