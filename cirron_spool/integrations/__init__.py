"""A delivery beside a training loop, and a callback for each training framework."""
