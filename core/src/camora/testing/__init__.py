"""What tests of applications and of plugins are made of."""
