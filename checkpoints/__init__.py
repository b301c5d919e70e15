"""What is in a checkpoint file: reading it safely, its configuration, other projects' layouts."""
