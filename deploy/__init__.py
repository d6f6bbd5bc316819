"""What Convoy is run and watched with. Nothing of the server, of training or of the load tests is imported here."""
