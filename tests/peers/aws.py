"""AWS Secrets Manager as moto plays it, in a process of its own: it can be made to hang, which is how services are down."""

from __future__ import annotations

import json
import signal

from moto.server import ThreadedMotoServer

if __name__ == "__main__":
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(json.dumps({"ready": True, "aws": f"http://{host}:{port}"}), flush=True)
    signal.pause()
