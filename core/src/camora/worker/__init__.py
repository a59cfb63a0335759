"""The worker: lanes that take deliveries, run them, and settle them."""
