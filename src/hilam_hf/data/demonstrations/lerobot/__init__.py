"""LeRobot datasets of version 3.0, written and read without lerobot."""
