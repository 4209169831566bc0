"""A delivery during training, and a callback for each training framework."""
