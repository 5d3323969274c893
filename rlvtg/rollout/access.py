"""Who may talk to a vLLM server: the token that both sides share, and which addresses are this machine's own."""

import ipaddress
import os

from rlvtg.recipe import RecipeError

TOKEN = "RLVTG_SERVER_TOKEN"
"""The environment variable that holds the token."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_of_environment() -> str | None:
    """The token, or None.

    Raises:
        RecipeError: it cannot be one; its text is not repeated.
    """
    token = os.environ.get(TOKEN)
    if token is None:
        return None
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise RecipeError(
            f"{TOKEN}: want 16 or more ASCII characters without spaces, such as openssl rand -hex 32 gives"
        )
    return token
