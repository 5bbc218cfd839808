"""Who may ask what (admin/access.py): roles by user and group, as the kernel tells them."""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from forkd.admin.access import Access, Peer, Roles
from forkd.config.schema import Admin
from tests.support.trivial import Trivial

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be several users")

USER = pwd.getpwnam("news")
GROUP = grp.getgrnam("games")


def peer(uid: int, *gids: int) -> Peer:
    return Peer(pid=1, uid=uid, gids=frozenset(gids or {uid}))


# --- the table, asked -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "access"),
    [
        (Admin(), Access.NONE),
        (Admin(view=("news",)), Access.VIEW),
        (Admin(operate=(str(USER.pw_uid),)), Access.OPERATE),
        (Admin(admin=("%games",)), Access.ADMIN),
        (Admin(admin=(f"%{GROUP.gr_gid}",)), Access.ADMIN),
        (Admin(view=("news",), operate=("%games",)), Access.OPERATE),
        (Admin(view=("%news", "nobody-of-that-name", "%no-such-group")), Access.NONE),
        (Admin(admin=(f"%{USER.pw_uid}",)), Access.NONE),
    ],
)
def test_a_role_is_had_by_name_number_or_group(table: Admin, access: Access):
    """The highest counts; a user's number is no group's."""
    roles = Roles(table, own=4711)
    assert roles.of(peer(USER.pw_uid, GROUP.gr_gid)) is access


def test_root_and_our_own_user_are_admins():
    """Without a word in the configuration."""
    roles = Roles(Admin(), own=4711)
    assert roles.of(peer(0)) is roles.of(peer(4711)) is Access.ADMIN
    assert roles.of(peer(4712)) is Access.NONE


def test_who_shows_as_the_overflow_user_is_nobody():
    """In a user namespace all strangers have one number: naming it, or being it, gives them nothing."""
    entries = ("nobody", "65534", "%nogroup", "%65534")
    strange = Roles(Admin(admin=entries), own=65_534, overflow=(65_534, 65_534))
    assert strange.of(peer(65_534)) is Access.NONE
    assert strange.of(peer(1000, 65_534)) is Access.NONE
    assert "does not know" in strange.refusal(peer(65_534))
    assert Roles(Admin(admin=entries), own=1).of(peer(65_534)) is Access.ADMIN


def test_a_refusal_says_who_may():
    """And where that is written."""
    said = Roles(Admin(), own=USER.pw_uid).refusal(peer(4712))
    assert said.startswith("user uid 4712 has no role here: root and news may control this forkd, ")
    assert said.endswith("who stands below [admin] in its configuration")


def test_the_kernel_says_who_is_at_the_other_end():
    """Supplementary groups included."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = Peer.of(ours)
    assert (found.pid, found.uid) == (os.getpid(), os.getuid())
    assert found.gids == {os.getgid(), *os.getgroups()}


@as_root
def test_who_is_in_very_many_groups_has_the_first_alone():
    """More than one call brings. Those that the machine knows of his name are not his process', which may
    have given them up."""
    code = (
        "import os, socket; from forkd.admin.access import Peer; os.setgroups(range(1000, 1300)); "
        "a, b = socket.socketpair(); print(sorted(Peer.of(a).gids))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [os.getgid()]


@as_root
def test_names_are_looked_up_once_in_a_while():
    """Else a directory somewhere is asked for each connection of anybody: here it is gone after the first."""
    code = (
        "import os, pwd; from forkd.admin.access import Access, Peer, Roles; "
        "from forkd.config.schema import Admin; from forkd.admin import access; "
        "roles = Roles(Admin(view=('news', '%games')), own=4711); "
        f"peers = [Peer(1, {USER.pw_uid}, frozenset()), Peer(1, 99, frozenset({{{GROUP.gr_gid}}}))]; "
        "first = [(roles.of(each), each.name) for each in peers]; "
        "os.chroot('/proc'); assert not os.path.exists('/etc/passwd'); "
        "again = [(roles.of(each), each.name) for each in peers]; "
        "access.RESOLVED_S = 1e-9; print(first == again, [roles.of(each).word for each in peers], first[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True ['none', 'none'] (<Access.VIEW: 1>, 'news')")


def test_a_namespace_that_knows_every_user_has_no_overflow():
    """master/privileges.py: the machine itself; the numbers of a namespace of one's own are few."""
    code = "from forkd.master.privileges import overflow; print(*overflow())"
    inside = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces on this machine")
    done = subprocess.run([*inside, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["65534", "65534"]
    here = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    whole = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    assert (here.stdout.split()[0] == "-1") == whole


# --- several users ask ----------------------------------------------------------------------------------

ASK = """
import socket, sys
c = socket.socket(socket.AF_UNIX)
c.connect(sys.argv[1])
lines = c.makefile("rb")
try:
    for line in sys.argv[2:]:
        c.sendall(line.encode() + b"\\n")
        print(lines.readline().decode().strip())
except BrokenPipeError:  # refused already: the reason is there to be read
    print(lines.readline().decode().strip())
except ConnectionResetError:
    pass
"""
REQUESTS = {
    "look": '{"request":"status"}',
    "list": '{"request":"queue","act":"list"}',
    "flush": '{"request":"queue","act":"flush"}',
    "remove": '{"request":"queue","act":"remove","ids":["A"]}',
}


@pytest.fixture(scope="module")
def forkd(tmp_path_factory):
    """news may look, by his group; mail operates; daemon administers."""
    folder = tmp_path_factory.mktemp("access")
    for each in (folder, *folder.parents[:-1]):
        if each.stat().st_uid == os.getuid():
            each.chmod(each.stat().st_mode | 0o011)
    table = {"view": ["%games"], "operate": ["mail"], "admin": ["daemon"]}
    with Trivial(folder, "admin,fake_qmgr", environment={"ADMIN": json.dumps(table)}) as forkd:
        yield forkd


def ask(forkd: Trivial, user: str, *more: str) -> list[dict]:
    gid = pwd.getpwnam(user).pw_gid
    identity = ["setpriv", f"--reuid={user}", f"--regid={gid}", *(more or ("--clear-groups",))]
    command = [*identity, sys.executable, "-I", "-c", ASK, str(forkd.run / "control.sock")]
    done = subprocess.run([*command, *REQUESTS.values()], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line]


@as_root
@pytest.mark.parametrize(
    ("who", "may"),
    [
        (("news", f"--groups={GROUP.gr_gid}"), ["look", "list"]),
        (("mail",), ["look", "list", "flush"]),
        (("daemon",), ["look", "list", "flush", "remove"]),
    ],
    ids=["view", "operate", "admin"],
)
def test_each_role_may_do_what_it_is_for(forkd: Trivial, who: tuple[str, ...], may: list[str]):
    """And is told which one it lacks; every act, and every refusal, has a line that says who it was."""
    answers = dict(zip(REQUESTS, ask(forkd, *who), strict=True))
    # The fake qmgr knows of no message A: asked, it says so.
    got = [name for name, answer in answers.items() if answer["ok"] or answer["error"] == "no such message"]
    assert got == may
    for name in set(REQUESTS) - set(may):
        assert answers[name]["error"].startswith('this needs the role "')
    lines = [line for line in forkd.log().splitlines() if "event=admin" in line and f"who={who[0]}[" in line]
    assert len(lines) == 2  # to look has none
    role = {2: "view", 3: "operate", 4: "admin"}[len(may)]
    assert all(f"uid={pwd.getpwnam(who[0]).pw_uid} role={role}" in line for line in lines)
    assert ("result=ok detail=flush" in lines[0].replace('"', "")) == ("flush" in may)
    assert "result=refused" in lines[1] and "remove: " in lines[1]


@as_root
def test_who_has_no_role_is_refused_and_told_why(forkd: Trivial):
    """Before a word of his is read."""
    (answer,) = ask(forkd, "nobody")
    assert answer["ok"] is False
    assert "user nobody has no role here" in answer["error"]
    forkd.wait_log("event=admin request=connect who=nobody[", "role=none result=refused")


@as_root
@pytest.mark.slow
def test_one_user_cannot_take_all_connections(forkd: Trivial):
    """The seventeenth of one user is refused; root finds a place all the same."""
    code = (
        "import socket, sys\n"
        "held = [socket.socket(socket.AF_UNIX) for _ in range(17)]\n"
        "for one in held: one.connect(sys.argv[1])\n"
        'held[0].sendall(b\'{"request":"status"}\\n\'); assert b\'ok":true\' in held[0].recv(65536)\n'
        "print(held[16].makefile().readline())\n"
    )
    command = ["setpriv", "--reuid=mail", "--regid=mail", "--clear-groups", sys.executable, "-I", "-c", code]
    done = subprocess.run(
        [*command, str(forkd.run / "control.sock")], capture_output=True, text=True, check=True
    )
    assert "user mail has 16 connections already" in done.stdout
    assert forkd.ask(b'{"request":"status"}')[0]["ok"]


@as_root
@pytest.mark.slow
def test_a_stranger_to_the_namespace_is_nobody_there(tmp_path):
    """A forkd in a container's user namespace: who is outside has no role in it, whatever he is called."""
    inside = ("unshare", "--user", "--map-root-user")
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces on this machine")
    for each in (tmp_path, *tmp_path.parents[:-1]):
        if each.stat().st_uid == os.getuid():
            each.chmod(each.stat().st_mode | 0o011)
    table = {"admin": ["nobody", "%nogroup"]}
    with Trivial(tmp_path, "admin", environment={"ADMIN": json.dumps(table)}, prefix=inside) as forkd:
        (answer,) = ask(forkd, "news")
        assert "uid 65534 stands here for every user" in answer["error"]
        assert forkd.ask(b'{"request":"status"}')[0]["ok"]
