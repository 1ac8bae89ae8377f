"""Logs in and out with the client that openapi-python-client has generated from the OpenAPI document."""

import os

from hallpass_client import AuthenticatedClient, Client
from hallpass_client.api.account import account_me
from hallpass_client.api.auth import auth_login, auth_logout, auth_refresh
from hallpass_client.models import (
    Account,
    AuthLoginBody,
    AuthRefreshBody,
    Delivery,
    ErrorBody,
    Revocation,
    TokenResponse,
)

base = os.environ["BASE"]


def me(tokens: TokenResponse):
    return account_me.sync(client=AuthenticatedClient(base_url=base, token=tokens.access_token))


anyone = Client(base_url=base)
wrong = AuthLoginBody(email=os.environ["EMAIL"], password="wrong password")
refused = auth_login.sync(client=anyone, body=wrong)
assert isinstance(refused, ErrorBody) and refused.error == "invalid_grant", refused

login = AuthLoginBody(email=os.environ["EMAIL"], password=os.environ["PASSWORD"], delivery=Delivery.BODY)
first = auth_login.sync(client=anyone, body=login)
assert isinstance(first, TokenResponse), first
account = me(first)
assert isinstance(account, Account) and account.email == os.environ["EMAIL"], account

second = auth_refresh.sync(client=anyone, body=AuthRefreshBody(refresh_token=first.refresh_token))
assert isinstance(second, TokenResponse) and second.session_id == first.session_id, second
assert isinstance(me(second), Account)

bearer = AuthenticatedClient(base_url=base, token=second.access_token)
revocation = auth_logout.sync(client=bearer)
assert isinstance(revocation, Revocation) and revocation.acknowledged == revocation.instances, revocation
for tokens in (first, second):
    dead = me(tokens)
    assert isinstance(dead, ErrorBody) and dead.error == "invalid_token", dead
print("The Python client has logged in and out.")
