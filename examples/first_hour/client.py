"""One observation to a server of openpi's protocol."""

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

policy = WebsocketClientPolicy("127.0.0.1", 8000)
answer = policy.infer({
    "observation/image": np.zeros((224, 224, 3), np.uint8),
    "observation/wrist_image": np.zeros((224, 224, 3), np.uint8),
    "observation/state": np.zeros(8, np.float32), "prompt": "put the bowl on the plate"})
print(answer["actions"].shape, "actions of observation", answer["observation_id"])
