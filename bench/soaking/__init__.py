"""The parts of `bench/soak`: what is sent, what stands around the gateway, what is done to it, and what must hold."""
