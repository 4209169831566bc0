"""One module for each training framework: its callback, thin over ``BackgroundDelivery``."""
