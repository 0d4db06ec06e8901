"""What models learn from: frames, pairs of frames, samples for policies, and batches of them."""
