"""Refuses at connect a client called bad.example, and every second client that one sandbox meets."""

from forkd.sdk import Plugin, deny


def plugin_init(settings):
    met = []

    def connect(session):
        if met:
            return deny("5.7.1", f"Met {met[0]} before")
        met.append(session.client_ip)
        if session.client_name == "bad.example":
            return deny("5.7.1", f"No, {session.user} on {session.client_ip}")
        return None

    return Plugin(connect=connect)
