"""The credentials of schemathesis's requests. Each of an administrator has a new session, because many end sessions."""

import base64
import json
import os
import urllib.request

import schemathesis

EMAIL, PASSWORD = os.environ["EMAIL"], os.environ["PASSWORD"]
CLIENT = base64.b64encode(os.environ["CLIENT"].encode()).decode()


def login():
    body = json.dumps({"email": EMAIL, "password": PASSWORD}).encode()
    url = os.environ["BASE"] + "/api/auth/login"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)["access_token"]


@schemathesis.auth(refresh_interval=None)
class Credentials:
    def get(self, case, context):
        return f"Basic {CLIENT}" if case.path.startswith("/oauth/") else f"Bearer {login()}"

    def set(self, case, authorization, context):
        case.headers["Authorization"] = authorization
